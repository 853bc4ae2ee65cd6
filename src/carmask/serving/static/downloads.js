// Results as files. The service makes them, with what was chosen here, so that they are what the command line makes.

import { segment } from "./api.js";
import { distinctStems, stem } from "./words.js";
import { zip } from "./zip.js";

// Browsers read what an address stands for only after the click, and do not say when.
const KEPT_MS = 60_000;

/** Save a photo's "cutout" or "mask". */
export async function saveResult(photo, kind, backdrop, queue) {
  const file = await makeFile(photo, kind, backdrop, queue);
  save(file, file.name);
}

/** Make a photo's "cutout" or "mask" as a File. */
export async function makeFile(photo, kind, backdrop, queue) {
  const blob = await makeResult(photo, kind, backdrop, queue, { signal: photo.signal, isUrgent: true });
  return new File([blob], `${stem(photo.name)}-${kind}.png`, { type: blob.type });
}

/**
 * Save one zip with the cut-outs and masks of all these photos, and a list of those without a vehicle.
 *
 * tell: called with how many files are made, of how many. signal: an AbortSignal. Makes no zip at all where one of them
 * cannot be made, so that none is missing unseen.
 */
export async function saveEverything(photos, backdrop, queue, tell, signal) {
  const stems = distinctStems(photos.map((photo) => photo.name));
  const ofKind = (kind) => photos.map((photo, index) => ({ photo, kind, name: stems[index] }));
  const wanted = [...ofKind("cutout"), ...ofKind("mask")];
  const empty = photos.filter((photo) => !photo.covered.hasVehicle).map((photo) => `${photo.name}\n`);
  let made = 0;
  const files = await Promise.all(
    wanted.map(async ({ photo, kind, name }) => {
      const blob = await makeResult(photo, kind, backdrop, queue, { signal }).catch((error) => {
        throw signal.aborted ? error : new Error(`${photo.name}: ${error.message}`, { cause: error });
      });
      tell((made += 1), wanted.length);
      return { name: `${kind}s/${name}.png`, blob };
    }),
  );
  if (empty.length > 0) files.push({ name: "no_vehicle.txt", blob: new Blob(empty) });
  const archive = await zip(files, new Date());
  signal.throwIfAborted();
  save(archive, "carmask.zip");
}

async function makeResult(photo, kind, backdrop, queue, turn) {
  const threshold = photo.threshold === null ? null : String(photo.threshold);
  const mask = photo.isCorrected ? { mask_file: photo.found.soft } : { vehicles: photo.vehicles };
  const used = photo.isCorrected ? String(photo.usedThreshold) : threshold;
  const fields = { kind, threshold: used, ...mask, ...(kind === "cutout" ? backdrop.fields : {}) };
  return (await queue.add(() => segment(photo.file, fields, turn.signal), turn)).blob;
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
}
