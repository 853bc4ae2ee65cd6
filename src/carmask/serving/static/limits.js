// What the service would refuse for its size, known before anything is sent.

import { megabytes, megapixels } from "./words.js";

// The limit is one of whole requests, and the form around a photo has some bytes too.
const FORM_BYTES = 2000;

/** A sentence where a file is beyond the service's limits, otherwise null. shown: its size in pixels, if known. */
export function beyond({ max_bytes, max_pixels }, file, shown) {
  if (file.size === 0) return "The file is empty.";
  if (file.size + FORM_BYTES > max_bytes) return tooLarge("file", megabytes(file.size), megabytes(max_bytes));
  const pixels = shown === null ? 0 : shown.height * shown.width;
  if (pixels > max_pixels) return tooLarge("photo", megapixels(pixels), megapixels(max_pixels));
  return null;
}

function tooLarge(what, has, most) {
  return `The ${what} has ${has}, more than the ${most} that this service takes. Save it smaller.`;
}
