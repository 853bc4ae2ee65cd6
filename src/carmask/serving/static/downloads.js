// Results as files. The service makes them, with what was chosen here, so that they are what the command line makes.

import { segment } from "./api.js";
import { distinctStems, stem } from "./words.js";
import { zip } from "./zip.js";

// Browsers read what an address stands for only after the click, and do not say when.
const KEPT_MS = 60_000;

const ENDINGS = { "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/avif": "avif" };

/** The files of a photo's cut-out and mask. Each is made once for what is chosen, for its preview and its download. */
export class Results {
  #photo;
  #look;
  #queue;
  // By kind: what was asked for, and a promise of the file.
  #made = {};

  constructor(photo, look, queue) {
    this.#photo = photo;
    this.#look = look;
    this.#queue = queue;
  }

  /** Make the "cutout" or "mask" as a File. */
  async make(kind) {
    const fields = fieldsOf(this.#photo, kind, this.#look);
    if (!isSame(this.#made[kind]?.fields, fields)) {
      const made = (this.#made[kind] = { fields, file: this.#ask(kind, fields) });
      made.file.catch(() => {
        if (this.#made[kind] === made) delete this.#made[kind];
      });
    }
    return this.#made[kind].file;
  }

  /** Make the "cutout" or "mask", and save it. */
  async save(kind) {
    const file = await this.make(kind);
    save(file, file.name);
    this.#photo.noteSaved();
  }

  /** Give the memory back. */
  forget() {
    this.#made = {};
  }

  async #ask(kind, fields) {
    const { name, signal } = this.#photo;
    const blob = await makeResult(this.#photo, fields, this.#queue, { signal, isUrgent: true });
    return new File([blob], `${stem(name)}_${fields.look ?? kind}.${ENDINGS[blob.type]}`, { type: blob.type });
  }
}

/**
 * Save one zip with the cut-outs and masks of all these photos, and a list of those without a vehicle.
 *
 * tell: called with how many files are made, of how many. signal: an AbortSignal. Makes no zip at all where one of them
 * cannot be made, so that none is missing unseen.
 */
export async function saveEverything(photos, look, queue, tell, signal) {
  const stems = distinctStems(photos.map((photo) => photo.name));
  const ofKind = (kind) => photos.map((photo, index) => ({ photo, kind, name: stems[index] }));
  const wanted = [...ofKind("cutout"), ...ofKind("mask")];
  const empty = photos.filter((photo) => !photo.covered.hasVehicle).map((photo) => `${photo.name}\n`);
  let made = 0;
  const files = await Promise.all(
    wanted.map(async ({ photo, kind, name }) => {
      const fields = fieldsOf(photo, kind, look);
      const blob = await makeResult(photo, fields, queue, { signal }).catch((error) => {
        throw signal.aborted ? error : new Error(`${photo.name}: ${error.message}`, { cause: error });
      });
      tell((made += 1), wanted.length);
      return { name: `${kind}s/${name}.${ENDINGS[blob.type]}`, blob };
    }),
  );
  if (empty.length > 0) files.push({ name: "no_vehicle.txt", blob: new Blob(empty) });
  const archive = await zip(files, new Date());
  signal.throwIfAborted();
  save(archive, "carmask.zip");
  for (const photo of photos) photo.noteSaved();
}

// The fields of a request, beside the photo itself.
function fieldsOf(photo, kind, look) {
  const threshold = photo.threshold === null ? null : String(photo.threshold);
  const mask = photo.isCorrected ? { mask_file: photo.found.soft } : { vehicles: photo.vehicles };
  const used = photo.isCorrected ? String(photo.usedThreshold) : threshold;
  return { kind, threshold: used, ...mask, ...(kind === "cutout" ? look.fields : {}) };
}

function isSame(fields, others) {
  return fields !== undefined && [fields, others].every((one) => Object.keys(one).every((name) => fields[name] === others[name]));
}

async function makeResult(photo, fields, queue, turn) {
  return (await queue.add(() => segment(photo.file, fields, turn.signal), turn)).blob;
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
}
