// A ZIP archive that stores files as they are: PNG does not get smaller. Format: PKWARE's APPNOTE.TXT, 6.3.

const LOCAL_HEADER = 0x04034b50;
const CENTRAL_HEADER = 0x02014b50;
const END_OF_CENTRAL = 0x06054b50;
const VERSION = 20;
// Bit 11 of the flags: names are UTF-8.
const NAMES_ARE_UTF8 = 1 << 11;
// Beyond these an archive needs ZIP64, which is not written here.
const MOST_FILES = 0xffff;
const MOST_BYTES = 0xffffffff;

/**
 * Pack files into one archive.
 *
 * files: [{ name, blob }], in the order in which they are stored; names are paths with "/". made: when, as a Date.
 * Returns a Blob that refers to the files' own Blobs, so that no more than one of them is in memory at a time.
 */
export async function zip(files, made) {
  const encoder = new TextEncoder();
  const parts = [];
  const central = [];
  let offset = 0;
  for (const { name, blob } of files) {
    const entry = { name: encoder.encode(name), crc: crc32(new Uint8Array(await blob.arrayBuffer())), size: blob.size };
    const local = record(LOCAL_HEADER, [...common(entry, made)], [entry.name]);
    // Made by: the same version; then no comment, first disk, no attributes, and where the file's own header stands.
    const more = [[2, 0], [2, 0], [2, 0], [4, 0], [4, offset]];
    central.push(record(CENTRAL_HEADER, [[2, VERSION], ...common(entry, made), ...more], [entry.name]));
    parts.push(local, blob);
    offset += local.size + blob.size;
  }
  const directory = new Blob(central);
  if (files.length > MOST_FILES || offset + directory.size > MOST_BYTES) {
    throw new Error("These results are too large for one zip of 4 GB. Download them in smaller parts.");
  }
  const counts = [[2, 0], [2, 0], [2, files.length], [2, files.length], [4, directory.size], [4, offset], [2, 0]];
  return new Blob([...parts, directory, record(END_OF_CENTRAL, counts)], { type: "application/zip" });
}

// Version needed, flags, stored, time, date, checksum, size twice, lengths of name and extra field.
function common({ name, crc, size }, made) {
  const time = (made.getHours() << 11) | (made.getMinutes() << 5) | (made.getSeconds() >> 1);
  const date = ((made.getFullYear() - 1980) << 9) | ((made.getMonth() + 1) << 5) | made.getDate();
  const sizes = [[4, crc], [4, size], [4, size], [2, name.length], [2, 0]];
  return [[2, VERSION], [2, NAMES_ARE_UTF8], [2, 0], [2, time], [2, date], ...sizes];
}

// fields: [bytes, value], written little-endian behind the signature.
function record(signature, fields, rest = []) {
  const bytes = new DataView(new ArrayBuffer(4 + fields.reduce((sum, [length]) => sum + length, 0)));
  bytes.setUint32(0, signature, true);
  let position = 4;
  for (const [length, value] of fields) {
    if (length === 2) bytes.setUint16(position, value, true);
    else bytes.setUint32(position, value, true);
    position += length;
  }
  return new Blob([bytes, ...rest]);
}

const CRC_OF_BYTE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

/** The checksum of ZIP and PNG. */
export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_OF_BYTE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
