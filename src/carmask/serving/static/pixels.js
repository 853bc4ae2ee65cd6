// Pixels in the browser: what a photo looks like cut out, from the photo and its soft mask.
//
// The soft mask's levels are 0..255 for a probability of 0..1. What is done here to a reduced picture is what
// carmask.imaging.cutout and carmask.imaging.background do to the whole one, but for the colors of the edge.

// As in carmask.imaging.cutout: alpha rises from nothing to whole within this distance of the threshold.
const HALF_RAMP = 0.25;
// As in carmask.imaging.background, of the longer side: the reach of the blur, and of colors behind the vehicle.
const BLUR_REACH = 1 / 48;
const CARRY_REACH = 1 / 4;
const CARRIED_COUNTS = 1e-3;
const BLUR_PASSES = 3;
// A blurred picture has no details, so few pixels are enough to compute it.
const BLURRED_SIDE_PX = 192;

/** A canvas that is not shown, for pixels that are read back. */
export function scratch({ height, width }) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas.getContext("2d", { willReadFrequently: true });
}

/** The largest size of the same proportions whose longer side has at most this many pixels. */
export function reduced({ height, width }, longest_px) {
  const scale = Math.min(1, longest_px / Math.max(height, width));
  return { height: Math.max(1, Math.round(height * scale)), width: Math.max(1, Math.round(width * scale)) };
}

/** Alpha 0..255 for each level of the soft mask. */
export function alphaOfLevel(threshold) {
  const ramp = Math.min(HALF_RAMP, threshold, 1 - threshold);
  const alpha = (level) => Math.min(1, Math.max(0, (level / 255 - threshold) / (2 * ramp) + 0.5));
  return Uint8ClampedArray.from({ length: 256 }, (_, level) => Math.round(255 * alpha(level)));
}

/** 255 for levels that belong to the mask, 0 for others. */
export function maskOfLevel(threshold) {
  return Uint8ClampedArray.from({ length: 256 }, (_, level) => (isVehicle(level, threshold) ? 255 : 0));
}

/** How many of the counted pixels (a list of 256, by level) belong to the mask. */
export function countVehicle(countOfLevel, threshold) {
  return countOfLevel.reduce((sum, count, level) => (isVehicle(level, threshold) ? sum + count : sum), 0);
}

function isVehicle(level, threshold) {
  return level >= 255 * threshold;
}

/** Set the alpha of an ImageData by its pixels' levels. */
export function setAlpha(image, levels, alpha) {
  const { data } = image;
  for (let pixel = 0; pixel < levels.length; pixel += 1) data[4 * pixel + 3] = alpha[levels[pixel]];
}

/** The red channel of an ImageData, which is the level of a gray picture. */
export function levelsOf(image) {
  const levels = new Uint8Array(image.data.length / 4);
  for (let pixel = 0; pixel < levels.length; pixel += 1) levels[pixel] = image.data[4 * pixel];
  return levels;
}

/** Draw a picture over the whole canvas, cropped about its middle. */
export function drawCovering(context, picture) {
  const { canvas } = context;
  const scale = Math.max(canvas.width / picture.width, canvas.height / picture.height);
  const [width, height] = [picture.width * scale, picture.height * scale];
  context.drawImage(picture, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
}

/**
 * The photo's background out of focus, without the colors of the vehicle, as a small canvas.
 *
 * image: ImageData of the photo; its alpha is changed.
 */
export function blurredBackground(image, levels, threshold) {
  const isSure = (level) => level / 255 <= threshold / 5;
  const surelyBackground = Uint8ClampedArray.from({ length: 256 }, (_, level) => (isSure(level) ? 255 : 0));
  setAlpha(image, levels, surelyBackground);
  const whole = scratch(image);
  whole.putImageData(image, 0, 0);
  const size = reduced(image, BLURRED_SIDE_PX);
  const small = scratch(size);
  small.imageSmoothingQuality = "high";
  small.drawImage(whole.canvas, 0, 0, size.width, size.height);
  const pixels = small.getImageData(0, 0, size.width, size.height);
  const longer_px = Math.max(size.width, size.height);
  const near = weighted(pixels.data);
  const far = near.slice();
  for (let pass = 0; pass < BLUR_PASSES; pass += 1) {
    boxBlur(near, size, Math.max(1, Math.round(longer_px * BLUR_REACH)));
    boxBlur(far, size, Math.max(1, Math.round(longer_px * CARRY_REACH)));
  }
  for (let at = 0; at < near.length; at += 4) {
    const weight = near[at + 3] + CARRIED_COUNTS * far[at + 3];
    for (let channel = 0; channel < 3; channel += 1) {
      pixels.data[at + channel] = weight > 0 ? (near[at + channel] + CARRIED_COUNTS * far[at + channel]) / weight : 0;
    }
    pixels.data[at + 3] = 255;
  }
  small.putImageData(pixels, 0, 0);
  return small.canvas;
}

// Colors times their alpha, and the alpha, 0..1.
function weighted(data) {
  const sums = new Float64Array(data.length);
  for (let at = 0; at < data.length; at += 4) {
    const alpha = data[at + 3] / 255;
    for (let channel = 0; channel < 3; channel += 1) sums[at + channel] = data[at + channel] * alpha;
    sums[at + 3] = alpha;
  }
  return sums;
}

// Mean over a square around each pixel, by running sums; beyond the picture's edge its last pixel goes on.
function boxBlur(sums, { height, width }, radius_px) {
  for (let row = 0; row < height; row += 1) blurLine(sums, 4 * row * width, 4, width, radius_px);
  for (let column = 0; column < width; column += 1) blurLine(sums, 4 * column, 4 * width, height, radius_px);
}

function blurLine(sums, start, step, length, radius_px) {
  const line = new Float64Array(length);
  const at = (index) => line[Math.min(length - 1, Math.max(0, index))];
  for (let channel = 0; channel < 4; channel += 1) {
    const first = start + channel;
    for (let index = 0; index < length; index += 1) line[index] = sums[first + index * step];
    let sum = 0;
    for (let index = -radius_px; index <= radius_px; index += 1) sum += at(index);
    for (let index = 0; index < length; index += 1) {
      sums[first + index * step] = sum / (2 * radius_px + 1);
      sum += at(index + radius_px + 1) - at(index - radius_px);
    }
  }
}
