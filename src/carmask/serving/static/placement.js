// Where vehicles are on a canvas, and their shadow, chosen once for all photos.

/**
 * Dispatches "change" when another value is typed or chosen. What is empty the look says.
 *
 * fields: those of a request for a cut-out that have a value. Throws where a value cannot be read.
 */
export class Placement extends EventTarget {
  #fields;

  /** fieldset: holds inputs whose names are the request's, and whose titles say what to write into them. */
  constructor(fieldset) {
    super();
    this.#fields = [...fieldset.querySelectorAll("input, select")];
    fieldset.addEventListener("input", () => this.dispatchEvent(new Event("change")));
  }

  get fields() {
    const wrong = this.#fields.find((field) => !field.checkValidity());
    if (wrong) throw new Error(wrong.title);
    return Object.fromEntries(this.#given.map(({ name, value }) => [name, value.trim()]));
  }

  /** Whether all is as the look says. */
  get isEmpty() {
    return this.#given.length === 0 && this.#fields.every(({ validity }) => !validity.badInput);
  }

  /** Leave all to the look. */
  clear() {
    for (const field of this.#fields) field.value = "";
  }

  get #given() {
    return this.#fields.filter(({ value }) => value.trim() !== "");
  }
}
