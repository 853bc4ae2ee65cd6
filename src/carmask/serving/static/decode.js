// From files to pixels, one at a time: a whole photo takes four bytes for each of its pixels while it is decoded.

import { levelsOf, reduced, scratch } from "./pixels.js";

// Canvases have a largest side, and take memory while they are read.
const TILE_PX = 1024;

let last = Promise.resolve();

function oneAtATime(work) {
  const result = last.then(work);
  last = result.catch(() => {});
  return result;
}

/**
 * The size in pixels at which the browser shows a picture, or null where it cannot show it.
 *
 * The browser reads the header for it and decodes nothing, so that this is safe with a picture of any size.
 */
export function sizeShown(file) {
  return oneAtATime(
    () =>
      new Promise((resolve) => {
        const address = URL.createObjectURL(file);
        const image = new Image();
        const finish = (size) => {
          URL.revokeObjectURL(address);
          resolve(size);
        };
        image.onload = () => finish({ height: image.naturalHeight, width: image.naturalWidth });
        image.onerror = () => finish(null);
        image.src = address;
      }),
  );
}

/**
 * Draw a picture on a canvas, with at most this many pixels on its longer side, and return the canvas' context.
 *
 * It is turned as its EXIF says, and its transparent parts are white, both as the service sees it.
 */
export function readPicture(blob, longest_px) {
  return withBitmap(blob, (bitmap) => {
    const size = reduced(bitmap, longest_px);
    const context = scratch(size);
    context.fillStyle = "white";
    context.fillRect(0, 0, size.width, size.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, size.width, size.height);
    return context;
  });
}

/** How many pixels of a soft mask have each of the 256 levels, at its full size. */
export function countLevels(blob) {
  return withBitmap(blob, (bitmap) => {
    const counts = new Array(256).fill(0);
    inTiles(bitmap, (levels) => {
      for (const level of levels) counts[level] += 1;
    });
    return counts;
  });
}

/** The levels of a soft mask at its full size, row by row. */
export function readLevels(blob) {
  return withBitmap(blob, (bitmap) => {
    const whole = new Uint8Array(bitmap.height * bitmap.width);
    inTiles(bitmap, (levels, { top, left, height, width }) => {
      for (let row = 0; row < height; row += 1) {
        whole.set(levels.subarray(row * width, (row + 1) * width), (top + row) * bitmap.width + left);
      }
    });
    return whole;
  });
}

/** A picture at its full size, turned as its EXIF says, for a canvas; the caller closes it. */
export function readBitmap(blob) {
  return oneAtATime(() => createImageBitmap(blob, { imageOrientation: "from-image" }));
}

function inTiles(bitmap, use) {
  const context = scratch({ height: TILE_PX, width: TILE_PX });
  for (let top = 0; top < bitmap.height; top += TILE_PX) {
    for (let left = 0; left < bitmap.width; left += TILE_PX) {
      const [height, width] = [Math.min(TILE_PX, bitmap.height - top), Math.min(TILE_PX, bitmap.width - left)];
      context.drawImage(bitmap, left, top, width, height, 0, 0, width, height);
      use(levelsOf(context.getImageData(0, 0, width, height)), { top, left, height, width });
    }
  }
}

function withBitmap(blob, use) {
  return oneAtATime(async () => {
    const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
    try {
      return use(bitmap);
    } finally {
      bitmap.close();
    }
  });
}
