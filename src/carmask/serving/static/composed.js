// The picture of a photo in the chosen look. The service makes it, and it is the file that is downloaded.

import { fileSize, sizeInPixels } from "./words.js";

const WAIT = "The service makes the preview";
// Sliders move through many values, and the service is asked for the last one alone.
const DELAY_MS = 300;

export class Composed {
  #figure;
  #image;
  #caption;
  #make;
  #show;
  #tell;
  #timer = null;
  // Counts requests, so that a result that was overtaken by another is not shown.
  #request = 0;
  #shown = null;

  /**
   * figure: the element with an image and a caption. make: makes the file of the picture, and returns a promise of it.
   * show: called with whether the picture is there. tell: shows a sentence where there is none, or hides it ("").
   */
  constructor(figure, { make, show, tell }) {
    this.#figure = figure;
    this.#image = figure.querySelector("img");
    this.#caption = figure.querySelector("figcaption");
    this.#make = make;
    this.#show = show;
    this.#tell = tell;
  }

  /** Have the picture made and show it. name: of the photo. label: of the look. */
  update(name, label) {
    clearTimeout(this.#timer);
    const request = ++this.#request;
    this.#caption.textContent = WAIT;
    this.#image.hidden = this.#shown === null;
    this.#figure.ariaBusy = "true";
    this.#figure.hidden = false;
    this.#timer = setTimeout(() => this.#load(request, name, label), DELAY_MS);
  }

  /** Show no picture, and give its memory back. */
  hide() {
    clearTimeout(this.#timer);
    this.#request += 1;
    this.#figure.hidden = true;
    this.#forget();
    this.#show(false);
  }

  async #load(request, name, label) {
    try {
      const file = await this.#make();
      if (request !== this.#request) return;
      this.#tell("");
      if (file !== this.#shown) await this.#draw(file);
      if (request !== this.#request) return;
      const { naturalHeight: height, naturalWidth: width } = this.#image;
      this.#image.alt = `${label}, ${name}`;
      this.#caption.textContent = `${label} · ${sizeInPixels({ height, width })} · ${fileSize(file.size)}`;
      this.#figure.ariaBusy = "false";
      this.#image.hidden = false;
      this.#show(true);
    } catch (error) {
      if (request !== this.#request) return;
      this.hide();
      this.#tell(`There is no preview. ${error.message}`);
    }
  }

  async #draw(file) {
    this.#forget();
    this.#shown = file;
    this.#image.src = URL.createObjectURL(file);
    await this.#image.decode();
  }

  #forget() {
    if (this.#shown) URL.revokeObjectURL(this.#image.src);
    this.#shown = null;
    this.#image.removeAttribute("src");
  }
}
