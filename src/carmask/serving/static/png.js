// A gray picture as PNG with every level as it is: a canvas would write four channels. Format: W3C's PNG, third edition.

import { crc32 } from "./zip.js";

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
// Bit depth, gray, and the only compression, filtering and no interlacing.
const GRAY_8 = [8, 0, 0, 0, 0];

/** Encode levels 0..255, row by row, as an 8-bit gray PNG; returns a Blob. */
export async function encodeGray(levels, { height, width }) {
  const rows = new Uint8Array(height * (width + 1));
  // Each row begins with its filter: none.
  for (let row = 0; row < height; row += 1) {
    rows.set(levels.subarray(row * width, (row + 1) * width), row * (width + 1) + 1);
  }
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  GRAY_8.forEach((value, index) => header.setUint8(8 + index, value));
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(packed).arrayBuffer());
  const parts = [chunk("IHDR", new Uint8Array(header.buffer)), chunk("IDAT", data), chunk("IEND", new Uint8Array())];
  return new Blob([new Uint8Array(SIGNATURE), ...parts], { type: "image/png" });
}

// Length, name, data, and the checksum of name and data.
function chunk(name, data) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}
