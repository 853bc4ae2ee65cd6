// A few requests at a time, so that many photos neither flood the service nor wait one behind the other.

const SHORTEST_WAIT_S = 1;
const LONGEST_WAIT_S = 30;
// A service that is busy for longer than this is not waited for any more.
const PATIENCE_S = 120;

export class Queue {
  #atOnce;
  #askToken;
  #sayBusy;
  #running = 0;
  #waiting = [];
  #resumeAt_ms = 0;

  /**
   * askToken: called where the service wants a token; resolves when there is one to try.
   * sayBusy: called with the seconds for which a busy service is left alone.
   */
  constructor(atOnce, { askToken, sayBusy }) {
    this.#atOnce = atOnce;
    this.#askToken = askToken;
    this.#sayBusy = sayBusy;
  }

  /**
   * Run `work` when its turn comes, again where the service is busy or wants a token, and return what it returns.
   *
   * signal: an AbortSignal that takes the work out again. isUrgent: before all that wait, for what somebody clicked on.
   */
  add(work, { signal, isUrgent = false } = {}) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const giveUp = () => {
        this.#waiting = this.#waiting.filter((other) => other !== entry);
        reject(signal.reason);
      };
      const entry = { work, signal, resolve, reject, giveUp };
      signal?.addEventListener("abort", giveUp);
      if (isUrgent) this.#waiting.unshift(entry);
      else this.#waiting.push(entry);
      this.#startNext();
    });
  }

  async #startNext() {
    if (this.#running >= this.#atOnce || this.#waiting.length === 0) return;
    const { work, signal, resolve, reject, giveUp } = this.#waiting.shift();
    this.#running += 1;
    try {
      resolve(await this.#untilAnswered(work, signal));
    } catch (error) {
      reject(error);
    } finally {
      // It would keep what was sent in memory for as long as there is the photo.
      signal?.removeEventListener("abort", giveUp);
      this.#running -= 1;
      this.#startNext();
    }
  }

  async #untilAnswered(work, signal) {
    let waited_s = 0;
    for (;;) {
      await this.#whilePaused(signal);
      try {
        return await work();
      } catch (error) {
        if (error.status === 401) {
          await this.#askToken();
        } else if (error.status === 503 && waited_s < PATIENCE_S) {
          const wait_s = Math.min(LONGEST_WAIT_S, Math.max(SHORTEST_WAIT_S, error.retryAfter_s ?? SHORTEST_WAIT_S));
          waited_s += wait_s;
          this.#resumeAt_ms = Math.max(this.#resumeAt_ms, performance.now() + 1000 * wait_s);
          this.#sayBusy(wait_s);
        } else {
          throw error;
        }
      }
    }
  }

  // One photo that was refused holds back all others: they would be refused too.
  async #whilePaused(signal) {
    for (let wait_ms; (wait_ms = this.#resumeAt_ms - performance.now()) > 0; ) {
      await new Promise((resolve) => setTimeout(resolve, wait_ms));
      signal?.throwIfAborted();
    }
  }
}
