// What a card shows of a photo and its cut-out, at no more pixels than a screen needs.

import { readPicture } from "./decode.js";
import { alphaOfLevel, blurredBackground, drawCovering, levelsOf, maskOfLevel, setAlpha } from "./pixels.js";

// Cards are less wide than this, on screens of high density too.
const LONGEST_PX = 1280;

export class Preview {
  #before;
  #after;
  // The photo's pixels and their levels; null while they are not in memory.
  #image = null;
  #levels = null;
  #blurred = null;
  // Counts loads, so that one that was overtaken by another does nothing.
  #load = 0;

  /** before, after: the canvases of the photo and of what it becomes. */
  constructor(before, after) {
    this.#before = before;
    this.#after = after;
  }

  /** Whether there is a cut-out to draw. */
  get isReady() {
    return this.#levels !== null;
  }

  /** Read the photo and its soft mask, as far as they are there, and show the photo. */
  async load({ file, found }) {
    const load = ++this.#load;
    const picture = await readPicture(found?.picture ?? file, LONGEST_PX);
    const soft = found ? await readPicture(found.soft, LONGEST_PX) : null;
    if (load !== this.#load) return;
    const { width, height } = picture.canvas;
    this.#image = picture.getImageData(0, 0, width, height);
    setSize(this.#before, this.#image);
    this.#before.getContext("2d").drawImage(picture.canvas, 0, 0);
    this.#levels = soft ? levelsOf(soft.getImageData(0, 0, width, height)) : null;
    this.#blurred = null;
  }

  /** Give the memory back. */
  free() {
    this.#load += 1;
    this.#image = this.#levels = this.#blurred = null;
    for (const canvas of [this.#before, this.#after]) setSize(canvas, { width: 0, height: 0 });
  }

  /** Draw the cut-out on a backdrop: { kind: transparent, white, color, blur or picture, color, picture }. */
  drawCutout(threshold, backdrop) {
    const context = this.#cleared();
    // What goes behind may need the image's alpha for itself, so it is made first.
    const blurred = backdrop.kind === "blur" ? this.#blurredAt(threshold) : null;
    setAlpha(this.#image, this.#levels, alphaOfLevel(threshold));
    context.putImageData(this.#image, 0, 0);
    context.globalCompositeOperation = "destination-over";
    if (blurred) drawCovering(context, blurred);
    else if (backdrop.kind === "picture" && backdrop.picture) drawCovering(context, backdrop.picture);
    else if (backdrop.color) this.#fill(context, backdrop.color);
  }

  /** Draw the mask alone, white on black. */
  drawMask(threshold) {
    const context = this.#cleared();
    const image = new ImageData(this.#image.width, this.#image.height);
    image.data.fill(255);
    setAlpha(image, this.#levels, maskOfLevel(threshold));
    context.putImageData(image, 0, 0);
    context.globalCompositeOperation = "destination-over";
    this.#fill(context, "black");
  }

  #cleared() {
    setSize(this.#after, this.#image);
    return this.#after.getContext("2d");
  }

  #fill(context, color) {
    context.fillStyle = color;
    context.fillRect(0, 0, this.#image.width, this.#image.height);
  }

  #blurredAt(threshold) {
    if (this.#blurred?.threshold !== threshold) {
      this.#blurred = { threshold, canvas: blurredBackground(this.#image, this.#levels, threshold) };
    }
    return this.#blurred.canvas;
  }
}

// Also where the size stays: setting it clears the canvas and all that was set on its context.
function setSize(canvas, { width, height }) {
  canvas.width = width;
  canvas.height = height;
}
