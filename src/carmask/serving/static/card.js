// A photo on the page: its stage with the before/after slider, what was found in it, and its controls.

import { Composed } from "./composed.js";
import { Results } from "./downloads.js";
import { DragOut } from "./drag.js";
import { Preview } from "./preview.js";
import { certainty, percent, seconds, sizeInPixels } from "./words.js";

const STATES = { waiting: "Waiting", working: "Looking for vehicles" };
const KINDS = { cutout: "cut-out", mask: "mask" };

const OVERLAY_NOTE =
  "Your browser cannot show this photo as the service sees it. This is the service's picture of it, tinted where the " +
  "vehicle was found, and the mask.";
const NO_PICTURE_NOTE = "Your browser cannot show this photo. Downloads work all the same.";

// Somebody who scrolls past comes back soon.
const FREED_AFTER_MS = 5000;

let cards = 0;

export class Card {
  #photo;
  #look;
  #results;
  #composed;
  #queue;
  #preview;
  #part;
  #drag;
  #isNear = false;
  // Until the browser fails to decode what it has to show.
  #isShowable = true;
  // What the preview was loaded for: nothing, the photo as it is `shown`, or what was `found`.
  #loaded = null;
  #frame = null;
  // The timer that will free the pixels of a card that left the screen.
  #leaving = null;

  /**
   * photo, look, queue: what it shows and works with. template: the page's <template> of a card. model: asks the
   * service what it says of itself, and returns that as a promise.
   * acts: what its buttons call that concerns other cards too, { remove(card), same(threshold), edit(photo) }.
   */
  constructor(photo, { template, look, queue, model, acts }) {
    this.#photo = photo;
    this.#look = look;
    this.#queue = queue;
    this.#results = new Results(photo, look, queue);
    this.element = template.content.firstElementChild.cloneNode(true);
    this.#part = (name) => this.element.querySelector(`.${name}`);
    this.#preview = new Preview(this.#part("before"), this.#part("after"));
    this.#label();
    this.#listen(model, acts);
    this.#update();
  }

  get photo() {
    return this.#photo;
  }

  /** Whether the card is on the screen or near it. Others give the memory of their pixels back. */
  set isNear(isNear) {
    this.#isNear = isNear;
    clearTimeout(this.#leaving);
    if (isNear) this.#load();
    else this.#leaving = setTimeout(() => this.#free(), FREED_AFTER_MS);
  }

  /** Take the card from the page, and the photo from memory. */
  remove() {
    this.#photo.remove();
    this.#isNear = false;
    this.#free();
    this.element.remove();
  }

  /** Put the keyboard's focus here. */
  focus() {
    this.#part("remove").focus();
  }

  #label() {
    const { name } = this.#photo;
    const id = `card-${(cards += 1)}`;
    const heading = this.#part("name");
    heading.textContent = name;
    heading.id = `${id}-name`;
    this.#part("card").setAttribute("aria-labelledby", heading.id);
    const level = this.#part("level");
    const label = this.element.querySelector(".threshold label");
    level.id = `${id}-level`;
    label.id = `${id}-label`;
    label.htmlFor = level.id;
    level.setAttribute("aria-labelledby", `${label.id} ${heading.id}`);
    const names = {
      remove: `Remove ${name}`,
      compare: `Before and after, ${name}`,
      own: `Reset threshold of ${name}`,
      same: `Use for all photos: threshold of ${name}`,
      again: `Try again with ${name}`,
      correct: `Correct mask of ${name}`,
      "get-cutout": `Download cut-out of ${name}`,
      "get-mask": `Download mask of ${name}`,
      before: `Photo ${name}`,
    };
    for (const [part, words] of Object.entries(names)) this.#part(part).setAttribute("aria-label", words);
  }

  #listen(model, acts) {
    const photo = this.#photo;
    const on = (part, event, act) => this.#part(part).addEventListener(event, act);
    photo.addEventListener("change", () => this.#update());
    const redress = () => {
      this.#tell("");
      this.#drawSoon();
    };
    this.#look.addEventListener("change", redress, { signal: photo.signal });
    on("remove", "click", () => acts.remove(this));
    on("again", "click", () => {
      // The button is gone while it is tried, and the focus would be lost with it.
      this.#part("card").focus();
      photo.analyze(this.#queue, model());
    });
    on("compare", "input", () => this.#cut());
    on("level", "input", (event) => photo.choose(event.target.valueAsNumber / 100));
    on("own", "click", () => {
      photo.choose(null);
      // As above.
      this.#part("level").focus();
    });
    on("correct", "click", (event) => this.#once(event.currentTarget, () => this.#correct(acts.edit)));
    on("same", "click", () => acts.same(photo.threshold));
    const make = () => this.#results.make("cutout");
    const tell = (words) => this.#tell(words);
    this.#drag = new DragOut(this.#part("drag"), make, tell);
    const show = (isThere) => this.#part("card").classList.toggle("in-look", isThere);
    this.#composed = new Composed(this.#part("composed"), { make, show, tell });
    for (const kind of Object.keys(KINDS)) {
      on(`get-${kind}`, "click", (event) => this.#once(event.currentTarget, () => this.#download(kind)));
    }
    this.#cut();
  }

  #update() {
    const { state, problem, found, shown } = this.#photo;
    // Also while the service is asked again: a slider that is being moved must stay.
    const isUsable = found !== null && state !== "failed";
    if (isUsable) this.#updateFound();
    this.element.firstElementChild.classList.toggle("working", state === "working");
    if (state !== "done") this.#part("state").textContent = STATES[state] ?? "";
    this.#part("trouble").hidden = state !== "failed";
    this.#part("trouble").firstElementChild.textContent = problem ?? "";
    this.#part("controls").hidden = !isUsable;
    this.#part("stage").hidden = !this.#isShowable || (shown === null && !isUsable);
    const size = found?.size ?? shown;
    if (size) this.#part("frame").style.setProperty("--ratio", size.width / size.height);
    this.#load();
  }

  #updateFound() {
    const photo = this.#photo;
    const { size, expectedDice, seconds: took_s } = photo.found;
    const { share, hasVehicle } = photo.covered;
    const covers = hasVehicle ? `vehicle covers ${percent(share)}` : "no vehicle found";
    const how = photo.isCorrected ? "corrected by hand" : seconds(took_s);
    const facts = [sizeInPixels(size), ...(hasVehicle ? [covers] : []), how];
    // It is of the mask at the network's own threshold.
    if (expectedDice !== null && photo.threshold === null && !photo.isCorrected) facts.splice(-1, 0, certainty(expectedDice));
    this.#part("state").textContent = facts.join(" · ");
    this.#part("none").hidden = hasVehicle;
    const threshold = photo.usedThreshold.toFixed(2);
    const level = this.#part("level");
    level.value = Math.round(100 * photo.usedThreshold);
    level.setAttribute("aria-valuetext", `${threshold}, ${covers}`);
    this.#part("value").textContent = threshold;
    for (const part of ["own", "same"]) this.#part(part).hidden = photo.threshold === null;
    this.#drawSoon();
  }

  #free() {
    clearTimeout(this.#leaving);
    this.#loaded = null;
    this.#preview.free();
    this.#results.forget();
    this.#composed.hide();
  }

  async #load() {
    const { found, shown } = this.#photo;
    const wanted = found ?? shown;
    if (!this.#isNear || wanted === null || wanted === this.#loaded) return;
    this.#loaded = wanted;
    try {
      await this.#preview.load(this.#photo);
      if (found && !this.#photo.isShown) this.#note(OVERLAY_NOTE);
      this.#drawSoon();
    } catch {
      // What is wrong with the photo the service says; where nothing is, only this picture is missing.
      this.#isShowable = false;
      this.#part("stage").hidden = true;
      if (found) this.#note(NO_PICTURE_NOTE);
      this.#drawSoon();
    }
  }

  #note(words) {
    this.#part("note").textContent = words;
    this.#part("note").hidden = false;
  }

  // Sliders move faster than the screen shows.
  #drawSoon() {
    this.#drag?.forget();
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      if (this.#preview.isReady && this.#photo.found) this.#draw();
      this.#compose();
    });
  }

  #compose() {
    const { found, name } = this.#photo;
    if (this.#look.isComposed && this.#loaded !== null && found) this.#composed.update(name, this.#look.label);
    else this.#composed.hide();
  }

  #draw() {
    const { usedThreshold, isShown, name } = this.#photo;
    if (isShown) this.#preview.drawCutout(usedThreshold, this.#look.backdrop);
    else this.#preview.drawMask(usedThreshold);
    const kind = isShown ? "Cut-out" : "Mask";
    this.#part("after").setAttribute("aria-label", `${kind} of ${name}`);
    this.#part("right").textContent = kind;
    for (const part of ["cut", "compare", "divider", "left", "right"]) this.#part(part).hidden = false;
  }

  #cut() {
    const compare = this.#part("compare");
    const percent_shown = compare.valueAsNumber;
    this.#part("frame").style.setProperty("--cut", `${percent_shown}%`);
    compare.setAttribute("aria-valuetext", `${percent_shown}% photo, ${100 - percent_shown}% result`);
  }

  // A button that is pressed again does nothing until the first is done.
  async #once(button, act) {
    if (button.getAttribute("aria-disabled") === "true") return;
    this.#tell("");
    // Not `disabled`, which would take the focus away.
    button.setAttribute("aria-disabled", "true");
    try {
      await act();
    } finally {
      button.removeAttribute("aria-disabled");
    }
  }

  async #correct(edit) {
    try {
      const corrected = await edit(this.#photo);
      if (corrected !== null && !this.#photo.signal.aborted) this.#photo.correct(corrected);
    } catch (error) {
      this.#tell(error.message);
    }
  }

  #tell(words) {
    this.#part("download-problem").textContent = words;
    this.#part("download-problem").hidden = words === "";
  }

  async #download(kind) {
    try {
      await this.#results.save(kind);
    } catch (error) {
      if (this.#photo.signal.aborted) return;
      this.#tell(`The ${KINDS[kind]} was not made. ${error.message}`);
    }
  }
}
