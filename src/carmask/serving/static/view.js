// A photo with its mask on a canvas, zoomed and moved. Every pixel of the screen shows the pixel of the photo below it.

const MOST_ZOOM = 32;
const SHADE = 140;
const LINE = [255, 225, 0];

export class View {
  #canvas;
  #shade = null;
  // Screen pixels for each pixel of the photo, and where on the canvas the photo's corner is.
  scale = 1;
  left = 0;
  top = 0;

  constructor(canvas) {
    this.#canvas = canvas;
  }

  /** Screen pixels of the canvas for each of CSS. */
  get density() {
    return this.#canvas.width / Math.max(1, this.#canvas.clientWidth);
  }

  /** Show the whole photo, as large as the canvas allows. */
  fit(size) {
    const { clientWidth, clientHeight } = this.#canvas;
    this.#canvas.width = Math.round(clientWidth * devicePixelRatio);
    this.#canvas.height = Math.round(clientHeight * devicePixelRatio);
    this.size = size;
    this.scale = this.#fitting;
    this.#keepInside();
  }

  /** Zoom about a point of the canvas. */
  zoom(factor, at) {
    const scale = Math.min(MOST_ZOOM, Math.max(this.#fitting, this.scale * factor));
    this.left = at.x - ((at.x - this.left) * scale) / this.scale;
    this.top = at.y - ((at.y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.#keepInside();
  }

  move(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.#keepInside();
  }

  /** A point of the page, as in events, on the canvas. */
  onCanvas({ clientX, clientY }) {
    const box = this.#canvas.getBoundingClientRect();
    const { width, height } = this.#canvas;
    return { x: ((clientX - box.left) * width) / box.width, y: ((clientY - box.top) * height) / box.height };
  }

  toPhoto({ x, y }) {
    return { x: (x - this.left) / this.scale, y: (y - this.top) / this.scale };
  }

  /** Draw the photo, dark where the mask is not, a line between, and the brush as a circle of this radius. */
  draw(picture, levels, threshold, brush) {
    const context = this.#canvas.getContext("2d");
    const { width, height } = this.#canvas;
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = this.scale < 3;
    context.drawImage(picture, this.left, this.top, this.size.width * this.scale, this.size.height * this.scale);
    context.drawImage(this.#shaded(levels, 255 * threshold), 0, 0);
    if (brush) this.#drawBrush(context, brush);
  }

  #shaded(levels, least) {
    const { width, height } = this.#canvas;
    this.#shade ??= document.createElement("canvas");
    if (this.#shade.width !== width || this.#shade.height !== height) Object.assign(this.#shade, { width, height });
    const context = this.#shade.getContext("2d");
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const dark = new Uint32Array(Uint8Array.of(0, 0, 0, SHADE).buffer)[0];
    const line = new Uint32Array(Uint8Array.of(...LINE, 255).buffer)[0];
    const columns = Int32Array.from({ length: width }, (_, x) => this.#index(x - this.left, this.size.width));
    const above = new Int8Array(width).fill(-1);
    for (let y = 0; y < height; y += 1) {
      const row = this.#index(y - this.top, this.size.height);
      let before = -1;
      for (let x = 0; x < width; x += 1) {
        const isPhoto = row >= 0 && columns[x] >= 0;
        const inside = isPhoto ? Number(levels[row * this.size.width + columns[x]] >= least) : -1;
        const isEdge = inside >= 0 && ((before >= 0 && before !== inside) || (above[x] >= 0 && above[x] !== inside));
        const at = y * width + x;
        // Of two pixels: on dense screens one can hardly be seen.
        if (isEdge) pixels[at] = pixels[at - 1] = pixels[at - width] = line;
        else if (inside === 0) pixels[at] = dark;
        before = above[x] = inside;
      }
    }
    context.putImageData(image, 0, 0);
    return this.#shade;
  }

  #index(offset, side) {
    const index = Math.floor((offset + 0.5) / this.scale);
    return index >= 0 && index < side ? index : -1;
  }

  #drawBrush(context, { x, y, radius }) {
    for (const [color, lineWidth] of [["#000", 4], ["#fff", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = lineWidth;
      context.beginPath();
      context.arc(x, y, Math.max(2, radius), 0, 2 * Math.PI);
      context.stroke();
    }
  }

  get #fitting() {
    return Math.min(this.#canvas.width / this.size.width, this.#canvas.height / this.size.height);
  }

  // A photo that is smaller than the canvas is in its middle; a larger one leaves nothing empty.
  #keepInside() {
    const inside = (start, extent, side) => {
      return extent <= side ? (side - extent) / 2 : Math.min(0, Math.max(side - extent, start));
    };
    this.left = inside(this.left, this.size.width * this.scale, this.#canvas.width);
    this.top = inside(this.top, this.size.height * this.scale, this.#canvas.height);
  }
}
