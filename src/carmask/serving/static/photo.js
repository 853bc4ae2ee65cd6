// A photo that somebody has added: what the service found in it, and what the person chose for it.

import { segment } from "./api.js";
import { countLevels, sizeShown } from "./decode.js";
import { beyond } from "./limits.js";
import { countVehicle } from "./pixels.js";

const NOT_DRAWN = "Your browser cannot draw a picture of this size. The command line and the API can.";

/**
 * Dispatches "change" whenever something in it is new.
 *
 * state: "waiting", "working", "done" or "failed". shown: its size where the browser can show it, otherwise null.
 * problem: a sentence, where it failed. threshold: 0..1, or null for the network's own. vehicles: "all", "largest" or
 * "center". found: null until it is done for the first time, then { size, coverage, hasVehicle, seconds, soft,
 * countOfLevel, picture, ownThreshold, asked }. Of these soft is the file of the soft mask, picture one that the browser
 * can show (the photo's own, or the service's overlay), and asked the choices for which the service made them. Once the
 * mask was corrected, soft is the corrected one, and network what the network had found. isUnsaved: it was corrected,
 * and nothing was downloaded since.
 */
export class Photo extends EventTarget {
  state = "waiting";
  shown = null;
  problem = null;
  threshold = null;
  found = null;
  isUnsaved = false;
  #gone = new AbortController();
  #askAgain;

  constructor(file, vehicles) {
    super();
    this.file = file;
    this.name = file.name;
    this.vehicles = vehicles;
  }

  /** Aborted when the photo is removed. */
  get signal() {
    return this.#gone.signal;
  }

  /** Whether the browser itself shows this photo, and as large as the service sees it. */
  get isShown() {
    return this.found === null ? this.shown !== null : this.found.picture === this.file;
  }

  /** The share of the photo that the mask covers, 0..1, and whether it holds anything, at the chosen threshold. */
  get covered() {
    const { size, coverage, hasVehicle, countOfLevel } = this.found;
    if (this.threshold === null && !this.isCorrected) return { share: coverage, hasVehicle };
    const count = countVehicle(countOfLevel, this.usedThreshold);
    return { share: count / (size.height * size.width), hasVehicle: count > 0 };
  }

  /** The threshold that holds, 0..1; for a photo that is done. */
  get usedThreshold() {
    return this.threshold ?? this.found.ownThreshold;
  }

  /** Whether the mask was corrected by hand. It stays as it is, whichever vehicles are chosen. */
  get isCorrected() {
    return this.found?.network !== undefined;
  }

  /** Take a corrected mask: { soft, countOfLevel, isOwn }. isOwn: it is again what the network had found. */
  correct({ soft, countOfLevel, isOwn }) {
    const network = isOwn ? undefined : (this.found.network ?? this.found.soft);
    this.#become({ found: { ...this.found, soft, countOfLevel, network }, isUnsaved: !isOwn });
    this.#followChoices();
  }

  /** A result along the mask as it is now was downloaded. */
  noteSaved() {
    this.isUnsaved = false;
  }

  /** Choose a threshold, 0..1, or null for the network's own. */
  choose(threshold) {
    this.#become({ threshold: threshold === this.found?.ownThreshold ? null : threshold });
    this.#followChoices();
  }

  /** Choose which vehicles are cut out: "all", "largest" or "center". */
  chooseVehicles(vehicles) {
    this.vehicles = vehicles;
    this.#followChoices();
  }

  /** Stop what is under way and let go of what was found. */
  remove() {
    this.#gone.abort();
    this.found = null;
  }

  /**
   * Have the service look for vehicles, and keep what it finds.
   *
   * model: a promise of what the service says of itself. Never rejects; what goes wrong is the photo's problem.
   */
  async analyze(queue, model) {
    this.#askAgain = () => this.analyze(queue, model);
    this.#become({ state: "waiting", problem: null });
    try {
      if (this.shown === null) this.#become({ shown: await sizeShown(this.file) });
      const { limits, threshold: ownThreshold } = await model;
      const problem = beyond(limits, this.file, this.shown);
      if (problem) throw new Error(problem);
      let found;
      // Once more, if something else was chosen meanwhile.
      do found = await this.#find(queue);
      while (!this.#isWanted(found.asked));
      // A mask that was corrected meanwhile stays.
      this.#become({ state: "done", found: this.isCorrected ? this.found : { ...found, ownThreshold } });
    } catch (error) {
      if (!this.signal.aborted) this.#become({ state: "failed", problem: error.message });
    }
  }

  // What the service has to know. Regions are those at the threshold, so which one is the largest depends on it.
  get #wanted() {
    return { vehicles: this.vehicles, threshold: this.vehicles === "all" ? null : this.threshold };
  }

  #isWanted({ vehicles, threshold }) {
    const wanted = this.#wanted;
    return vehicles === wanted.vehicles && threshold === wanted.threshold;
  }

  #followChoices() {
    if (this.state === "done" && !this.isCorrected && !this.#isWanted(this.found.asked)) this.#askAgain();
  }

  async #find(queue) {
    const { shown } = this;
    const asked = this.#wanted;
    const { blob: soft, size, ...figures } = await this.#segment(queue, { kind: "soft", ...asked });
    const agrees = shown !== null && shown.height === size.height && shown.width === size.width;
    const picture = agrees ? this.file : (await this.#segment(queue, { kind: "overlay", ...asked })).blob;
    const countOfLevel = await countLevels(soft).catch((cause) => {
      throw new Error(NOT_DRAWN, { cause });
    });
    return { ...figures, size, soft, picture, countOfLevel, asked };
  }

  #segment(queue, fields) {
    const work = () => {
      this.#become({ state: "working" });
      return segment(this.file, fields, this.signal);
    };
    return queue.add(work, { signal: this.signal });
  }

  #become(news) {
    Object.assign(this, news);
    this.dispatchEvent(new Event("change"));
  }
}
