// Dragging a result out of the page, into a folder or another program.

const WAIT = "One moment: the cut-out is being made. Then drag it once more.";
// Browsers read what an address stands for some time after the drop.
const KEPT_MS = 60_000;

export class DragOut {
  #make;
  #tell;
  // The result as it is now: a promise of a File, and once it is there the file with its address.
  #making = null;
  #ready = null;

  /**
   * handle: the element that is dragged. make: makes the file, and returns a promise of it. tell: shows a sentence, or
   * hides it ("").
   */
  constructor(handle, make, tell) {
    this.#make = make;
    this.#tell = tell;
    // A drag cannot wait for the service, so the file is made before.
    handle.addEventListener("pointerenter", () => this.#prepare());
    handle.addEventListener("dragstart", (event) => this.#start(event));
  }

  /** The result has changed. */
  forget() {
    const old = this.#ready;
    this.#making = this.#ready = null;
    if (old) setTimeout(() => URL.revokeObjectURL(old.address), KEPT_MS);
  }

  async #prepare() {
    if (this.#making) return;
    const making = (this.#making = this.#make());
    try {
      const file = await making;
      if (making === this.#making) this.#ready = { file, address: URL.createObjectURL(file) };
    } catch (error) {
      if (making !== this.#making) return;
      this.#making = null;
      this.#tell(error.message);
    }
  }

  #start(event) {
    if (this.#ready === null) {
      event.preventDefault();
      this.#prepare();
      this.#tell(WAIT);
      return;
    }
    const { file, address } = this.#ready;
    this.#tell("");
    event.dataTransfer.effectAllowed = "copy";
    // For other pages, and for folders.
    event.dataTransfer.items.add(file);
    event.dataTransfer.setData("DownloadURL", `${file.type}:${file.name}:${address}`);
  }
}
