// Figures and names as people read them.

// No line begins with a unit.
const SPACE = "\u00a0";

export function megabytes(bytes) {
  return `${trimmed(bytes / 1e6)}${SPACE}MB`;
}

/** Of a file, which may be small. */
export function fileSize(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)}${SPACE}kB` : megabytes(bytes);
}

export function megapixels(pixels) {
  return `${trimmed(pixels / 1e6)} megapixels`;
}

export function sizeInPixels({ height, width }) {
  return `${width}${SPACE}×${SPACE}${height}${SPACE}px`;
}

/** share: 0..1. A vehicle of a few pixels is not said to cover nothing. */
export function percent(share) {
  if (share > 0 && share < 0.0005) return "less than 0.1%";
  return `${(100 * share).toFixed(1)}%`;
}

/** What the network expects of its mask: a word for people, and the Dice, 0..1. */
export function certainty(expectedDice) {
  const word = expectedDice >= 0.97 ? "sure" : expectedDice >= 0.9 ? "rather sure" : "doubtful";
  return `${word}, expected Dice ${expectedDice.toFixed(3)}`;
}

export function seconds(seconds_s) {
  return `${seconds_s < 9.95 ? seconds_s.toFixed(2) : seconds_s.toFixed(0)}${SPACE}s`;
}

export function photos(count) {
  return `${count} ${count === 1 ? "photo" : "photos"}`;
}

/** A file's name without its suffix. */
export function stem(name) {
  return name.replace(/(.)\.[^.]*$/, "$1");
}

/** The stems of files' names, with numbers where several would be alike, also where capitals do not count. */
export function distinctStems(names) {
  const taken = new Set();
  return names.map((name) => {
    const plain = stem(name).replace(/[\\/:*?"<>|\p{Cc}]/gu, "_");
    let found = plain;
    for (let number = 2; taken.has(found.toLowerCase()); number += 1) found = `${plain} (${number})`;
    taken.add(found.toLowerCase());
    return found;
  });
}

function trimmed(number) {
  return String(Number(number.toPrecision(3)));
}
