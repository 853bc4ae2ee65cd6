// How cut-outs look, chosen once for all photos: a look of the service's, the file format, place, shadow, and what is
// behind.

const NO_LOOK = "Cut-out";
const NO_TRANSPARENCY = "JPEG has no transparency; choose another background or format.";

/**
 * Dispatches "change" when something else is chosen, the placement and the backdrop too.
 *
 * name: of the service's look, as `carmask predict --look` takes it, or null for none. label: what the picture is, for
 * people. isComposed: whether only the service can show it.
 * backdrop: the Backdrop. fields: the fields of a request for a cut-out.
 */
export class Look extends EventTarget {
  name = null;
  label = NO_LOOK;
  #parts;
  #placement;
  #tell;

  /**
   * parts: the page's elements { radios, format, ownFormat, ownBackground }; the last two are the choices of what the
   * look itself says, which are of no use without one. placement: the Placement. tell: shows a sentence, or hides it
   * ("").
   */
  constructor(parts, placement, backdrop, tell) {
    super();
    this.#parts = parts;
    this.#placement = placement;
    this.#tell = tell;
    this.backdrop = backdrop;
    for (const radio of parts.radios) radio.addEventListener("change", () => this.#choose(radio));
    parts.format.addEventListener("change", () => this.#changed());
    placement.addEventListener("change", () => this.#changed());
    backdrop.addEventListener("change", () => this.#changed());
  }

  get fields() {
    const { fields } = this.backdrop;
    if (this.#isImpossible) throw new Error(NO_TRANSPARENCY);
    return { look: this.name, format: this.#parts.format.value || null, ...this.#placement.fields, ...fields };
  }

  get isComposed() {
    return this.name !== null || this.backdrop.kind === "studio" || !this.#placement.isEmpty;
  }

  // What looks themselves say only the service knows; it refuses them in the same way.
  get #isImpossible() {
    return this.#parts.format.value === "jpg" && this.backdrop.kind === "transparent";
  }

  #choose(radio) {
    const { format, ownFormat, ownBackground } = this.#parts;
    const isNone = radio.value === "none";
    this.name = isNone ? null : radio.value;
    this.label = isNone ? NO_LOOK : radio.parentElement.textContent.trim();
    this.#placement.clear();
    ownFormat.hidden = ownFormat.disabled = ownBackground.hidden = isNone;
    if (!isNone) format.value = "";
    else if (format.value === "") format.value = "png";
    // Which dispatches "change".
    if (isNone && this.backdrop.kind !== "look") this.#changed();
    else this.backdrop.choose(isNone ? "transparent" : "look");
  }

  #changed() {
    if (this.#isImpossible) this.#tell(NO_TRANSPARENCY);
    else if (!this.backdrop.isMissing) this.#tell("");
    this.dispatchEvent(new Event("change"));
  }
}
