// Painting on a mask: which pixels a stroke takes, and undo and redo. Knows nothing of the screen.

const VEHICLE = 255;
const BACKGROUND = 0;
// Probabilities that differ by less than this have no edge to snap to.
const LEAST_CONTRAST = 40;
// Pixels during a stroke: not under the brush yet; those that it would change; those that need no further look.
const [UNCOVERED, OTHER, SEEN] = [0, 1, 2];
// What can be undone takes at most this much memory.
const HISTORY_BYTES = 256e6;

/**
 * A mask that is painted on.
 *
 * levels: the mask as it is now, 0..255 for a probability of 0..1, row by row; painted pixels are 255 or 0.
 * network: the same as the network found it, to which strokes snap. threshold: of the mask, 0..1.
 */
export class PaintedMask {
  #least;
  #undone = [];
  #done = [];
  #stroke = null;

  constructor(levels, network, threshold, { height, width }) {
    this.#least = 255 * threshold;
    this.levels = levels;
    this.network = network;
    this.size = { height, width };
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  /** Begin a stroke that adds to the mask or removes from it; all of it is undone at once. */
  begin({ adds, snaps }) {
    const covered = snaps ? new Uint8Array(this.levels.length) : null;
    this.#stroke = { level: adds ? VEHICLE : BACKGROUND, adds, snaps, pixels: [], before: [], covered, others: [] };
  }

  /** Paint all pixels whose center is within `radius` of the line from one point to another, in pixels of the photo. */
  paint(from, to, radius) {
    const { adds, snaps } = this.#stroke;
    const pixels = this.#near(from, to, radius);
    if (snaps) this.#cover(pixels);
    const takes = snaps ? this.#snapping(pixels, adds) : () => true;
    for (const pixel of pixels) {
      if (takes(pixel)) this.#set(pixel);
    }
  }

  // What the network has on the side that is painted is taken. The rest is parted in two where its probabilities
  // differ, and the nearer part is taken too; where they do not, all of it or, beside what was taken, nothing.
  #snapping(pixels, adds) {
    const agrees = (pixel) => this.network[pixel] >= this.#least === adds;
    const others = pixels.filter((pixel) => !agrees(pixel));
    const split = splitOf(others, this.network);
    if (split === null) return others.length === pixels.length ? () => true : agrees;
    return (pixel) => agrees(pixel) || this.network[pixel] > split === adds;
  }

  #cover(pixels) {
    const { adds, covered, others } = this.#stroke;
    for (const pixel of pixels) {
      if (covered[pixel] !== UNCOVERED) continue;
      const isOther = this.levels[pixel] >= this.#least !== adds;
      covered[pixel] = isOther ? OTHER : SEEN;
      if (isOther) others.push(pixel);
    }
  }

  // Of a region that the stroke covered whole nothing is left, whatever edges are in it.
  #takeWholeRegions() {
    const { adds, covered, others } = this.#stroke;
    const { width } = this.size;
    let region, isWhole;
    const visit = (pixel) => {
      if (covered[pixel] === OTHER) {
        covered[pixel] = SEEN;
        region.push(pixel);
      } else if (covered[pixel] === UNCOVERED && this.levels[pixel] >= this.#least !== adds) {
        isWhole = false;
      }
    };
    for (const first of others) {
      [region, isWhole] = [[], true];
      visit(first);
      for (const pixel of region) {
        const column = pixel % width;
        if (column > 0) visit(pixel - 1);
        if (column < width - 1) visit(pixel + 1);
        visit(pixel - width);
        visit(pixel + width);
      }
      if (isWhole) for (const pixel of region) this.#set(pixel);
    }
  }

  /** End the stroke. */
  end() {
    if (this.#stroke.snaps) this.#takeWholeRegions();
    const { pixels, before, level } = this.#stroke;
    this.#stroke = null;
    if (pixels.length > 0) this.#remember(Uint32Array.from(pixels), Uint8Array.from(before), level);
  }

  /** Give the stroke up: its pixels are as they were. */
  cancel() {
    const { pixels, before } = this.#stroke;
    this.#stroke = null;
    pixels.forEach((pixel, index) => (this.levels[pixel] = before[index]));
  }

  /** Go back to what the network found; can be undone. */
  reset() {
    const pixels = [];
    for (let pixel = 0; pixel < this.levels.length; pixel += 1) {
      if (this.levels[pixel] !== this.network[pixel]) pixels.push(pixel);
    }
    if (pixels.length === 0) return;
    const before = Uint8Array.from(pixels, (pixel) => this.levels[pixel]);
    for (const pixel of pixels) this.levels[pixel] = this.network[pixel];
    this.#remember(Uint32Array.from(pixels), before, null);
  }

  undo() {
    const step = this.#done.pop();
    if (!step) return;
    step.pixels.forEach((pixel, index) => (this.levels[pixel] = step.before[index]));
    this.#undone.push(step);
  }

  redo() {
    const step = this.#undone.pop();
    if (!step) return;
    for (const pixel of step.pixels) this.levels[pixel] = step.level ?? this.network[pixel];
    this.#done.push(step);
  }

  #set(pixel) {
    const { level, pixels, before } = this.#stroke;
    if (this.levels[pixel] === level) return;
    pixels.push(pixel);
    before.push(this.levels[pixel]);
    this.levels[pixel] = level;
  }

  #remember(pixels, before, level) {
    this.#done.push({ pixels, before, level });
    this.#undone = [];
    let bytes = this.#done.reduce((sum, step) => sum + 5 * step.before.length, 0);
    while (bytes > HISTORY_BYTES && this.#done.length > 1) bytes -= 5 * this.#done.shift().before.length;
  }

  #near(from, to, radius) {
    const { height, width } = this.size;
    const first = (one, other) => Math.max(0, Math.floor(Math.min(one, other) - radius));
    const last = (one, other, side) => Math.min(side - 1, Math.ceil(Math.max(one, other) + radius));
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    const length2 = dx * dx + dy * dy;
    const pixels = [];
    for (let row = first(from.y, to.y); row <= last(from.y, to.y, height); row += 1) {
      for (let column = first(from.x, to.x); column <= last(from.x, to.x, width); column += 1) {
        const [x, y] = [column + 0.5 - from.x, row + 0.5 - from.y];
        const along = length2 > 0 ? Math.min(1, Math.max(0, (x * dx + y * dy) / length2)) : 0;
        const [offX, offY] = [x - along * dx, y - along * dy];
        if (offX * offX + offY * offY <= radius * radius) pixels.push(row * width + column);
      }
    }
    return pixels;
  }
}

/**
 * The level that best parts these pixels in two, by Otsu's method (1979): higher ones are more likely vehicle. Null
 * where they hardly differ.
 */
function splitOf(pixels, levels) {
  const counts = new Array(256).fill(0);
  for (const pixel of pixels) counts[levels[pixel]] += 1;
  const lowest = counts.findIndex((count) => count > 0);
  const highest = counts.findLastIndex((count) => count > 0);
  if (lowest < 0 || highest - lowest < LEAST_CONTRAST) return null;
  const total = counts.reduce((sum, count, level) => sum + count * level, 0);
  let [below, sumBelow, best, bestVariance] = [0, 0, lowest, -1];
  for (let level = lowest; level < highest; level += 1) {
    below += counts[level];
    sumBelow += counts[level] * level;
    const above = pixels.length - below;
    const apart = sumBelow / below - (total - sumBelow) / above;
    const variance = below * above * apart * apart;
    if (variance > bestVariance) [best, bestVariance] = [level, variance];
  }
  return best;
}
