// What cut-outs lie on, chosen once for all photos.

import { readPicture } from "./decode.js";
import { beyond } from "./limits.js";

const LONGEST_PX = 1280;
const MISSING = "Choose a picture for the background.";

/**
 * Dispatches "change" when another background is chosen.
 *
 * kind: "transparent", "white", "color", "blur", "studio", "picture", or "look" for what the look says. color: of white and color,
 * as CSS writes it. picture: a canvas of one's own picture, reduced for the preview.
 */
export class Backdrop extends EventTarget {
  kind = "transparent";
  picture = null;
  #file = null;
  #tell;
  #limits;
  #parts;

  /** parts: the page's elements { radios, color, choose, chooser, name }. tell: shows a sentence, or hides it (""). */
  constructor(parts, tell) {
    super();
    this.#parts = parts;
    this.#tell = tell;
    for (const radio of parts.radios) radio.addEventListener("change", () => this.choose(radio.value));
    parts.color.addEventListener("input", () => this.choose("color"));
    parts.choose.addEventListener("click", () => parts.chooser.click());
    parts.chooser.addEventListener("change", () => this.#take(parts.chooser.files[0]));
  }

  /** The service's limits hold for this picture too. */
  set limits(limits) {
    this.#limits = limits;
  }

  get color() {
    return { white: "white", color: this.#parts.color.value }[this.kind] ?? null;
  }

  /** The fields of a request for a cut-out. Throws where a picture is wanted and none was chosen yet. */
  get fields() {
    if (this.isMissing) throw new Error(MISSING);
    if (this.kind === "look") return {};
    return this.kind === "picture" ? { background_file: this.#file } : { background: this.color ?? this.kind };
  }

  /** Whether a picture is wanted and none was chosen yet. */
  get isMissing() {
    return this.kind === "picture" && this.#file === null;
  }

  /** Choose a kind. */
  choose(kind) {
    this.kind = kind;
    for (const radio of this.#parts.radios) radio.checked = radio.value === kind;
    // The chooser is not opened here: somebody may only be passing with the arrow keys.
    this.#tell(this.isMissing ? MISSING : "");
    this.dispatchEvent(new Event("change"));
  }

  async #take(file) {
    this.#parts.chooser.value = "";
    if (!file) return;
    const problem = this.#limits ? beyond(this.#limits, file, null) : null;
    try {
      if (problem) throw new Error(problem);
      this.picture = (await readPicture(file, LONGEST_PX)).canvas;
    } catch {
      this.#tell(`${file.name}: ${problem ?? "your browser cannot show this picture; choose a JPEG, PNG or WebP."}`);
      return;
    }
    this.#file = file;
    this.#parts.name.textContent = file.name;
    this.choose("picture");
  }
}
