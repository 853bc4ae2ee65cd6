// The window in which a mask is corrected by hand: a brush with mouse, pen, fingers or keyboard.

import { PaintedMask } from "./brush.js";
import { readBitmap, readLevels } from "./decode.js";
import { encodeGray } from "./png.js";
import { View } from "./view.js";

const NOT_OPENED = "Your browser cannot open this photo for correction.";
// Of the brush's radius.
const KEY_STEP = 0.5;
const KEY_SIZE_STEP = 4;
// On many keyboards, such as German ones of a Mac.
const TYPED_WITH_ALT = ["[", "]"];
const ZOOM_STEP = 1.5;
// Of the wheel's turn. Browsers report a pinch on a touchpad as small turns with Ctrl.
const ZOOM_OF_WHEEL = 1.0015;
const ZOOM_OF_PINCH = 1.01;
const SIZE_OF_WHEEL = 0.1;
// A finger that has moved less when another one comes was to zoom, not to paint; in pixels of the page.
const LEAST_STROKE = 12;

export class Editor {
  #dialog;
  #view;
  // From the click to the corrected file: large photos take seconds to open.
  #isBusy = false;
  #mask = null;
  #picture = null;
  #threshold = 0.5;
  // Where the brush is on the canvas.
  #brush = null;
  #pointers = new Map();
  // Where the stroke that is being painted began on the canvas.
  #start = null;
  // The last point of the stroke that is being painted, in pixels of the photo.
  #last = null;
  // What a turn of the wheel left of a step of the brush's size.
  #turned = 0;
  #isDrawing = false;

  /** dialog: the page's <dialog> of the editor. */
  constructor(dialog) {
    this.#dialog = dialog;
    this.#view = new View(this.#part("paper"));
    this.#listen();
  }

  /**
   * Open a photo that is done, and resolve when the window is closed: to the corrected soft mask as a file, with how
   * many pixels have each level, and whether it is the network's own; or to null where nothing was changed, or while
   * another one is open.
   */
  async edit(photo) {
    if (this.#isBusy) return null;
    this.#isBusy = true;
    try {
      return await this.#edit(photo);
    } finally {
      this.#isBusy = false;
    }
  }

  /** Whether something was painted that the window still holds. */
  get isPainted() {
    return this.#mask?.canUndo ?? false;
  }

  async #edit({ found, name, usedThreshold }) {
    try {
      const [levels, network] = [await readLevels(found.soft), await readLevels(found.network ?? found.soft)];
      this.#picture = await readBitmap(found.picture);
      this.#mask = new PaintedMask(levels, network, usedThreshold, found.size);
    } catch (cause) {
      throw new Error(NOT_OPENED, { cause });
    }
    const before = this.#mask.levels.slice();
    this.#threshold = usedThreshold;
    this.#part("title").textContent = name;
    this.#dialog.showModal();
    this.#part("paper").focus();
    this.#view.fit(found.size);
    this.#brush = { x: this.#part("paper").width / 2, y: this.#part("paper").height / 2 };
    this.#update();
    await new Promise((resolve) => this.#dialog.addEventListener("close", resolve, { once: true }));
    const { levels, network } = this.#mask;
    // A finger that is still down lifts elsewhere.
    this.#pointers.clear();
    this.#last = null;
    this.#picture.close();
    this.#mask = this.#picture = null;
    if (isSame(levels, before)) return null;
    const countOfLevel = new Array(256).fill(0);
    for (const level of levels) countOfLevel[level] += 1;
    return { soft: await encodeGray(levels, found.size), countOfLevel, isOwn: isSame(levels, network) };
  }

  #part(name) {
    return this.#dialog.querySelector(`.${name}`);
  }

  get #adds() {
    return this.#part("adds").checked;
  }

  // On the canvas.
  get #radius() {
    return (this.#part("size").valueAsNumber / 2) * this.#view.density;
  }

  #listen() {
    const paper = this.#part("paper");
    const on = (name, act) => this.#part(name).addEventListener("click", () => this.#do(act));
    on("undo", () => this.#mask.undo());
    on("redo", () => this.#mask.redo());
    on("reset", () => this.#mask.reset());
    on("closer", () => this.#zoom(ZOOM_STEP));
    on("farther", () => this.#zoom(1 / ZOOM_STEP));
    on("whole", () => this.#view.fit(this.#mask.size));
    this.#part("done").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("input", () => this.#update());
    // Of the document, at whose body the focus is after a button became disabled.
    document.addEventListener("keydown", (event) => this.#mask && this.#press(event));
    new ResizeObserver(() => this.#mask && this.#do(() => this.#view.fit(this.#mask.size))).observe(paper);
    paper.addEventListener("pointerdown", (event) => this.#down(event));
    paper.addEventListener("pointermove", (event) => this.#move(event));
    for (const type of ["pointerup", "pointercancel"]) paper.addEventListener(type, (event) => this.#up(event));
    paper.addEventListener("contextmenu", (event) => event.preventDefault());
    paper.addEventListener("wheel", (event) => this.#do(() => this.#turn(event)), { passive: false });
  }

  #do(act) {
    act();
    this.#update();
  }

  #zoom(factor) {
    this.#view.zoom(factor, this.#brush);
  }

  // ---- mouse, pen and fingers: one paints, two move and zoom; the other buttons of a mouse move ----
  #down(event) {
    event.preventDefault();
    this.#part("paper").focus();
    this.#part("paper").setPointerCapture(event.pointerId);
    const at = this.#view.onCanvas(event);
    this.#pointers.set(event.pointerId, at);
    if (this.#pointers.size === 1 && event.button === 0) {
      this.#brush = at;
      this.#begin();
      this.#paintTo(at);
    } else {
      this.#interrupt();
    }
    this.#update();
  }

  #move(event) {
    const at = this.#view.onCanvas(event);
    this.#brush = at;
    const before = this.#pointers.get(event.pointerId);
    if (before && this.#last) {
      // All places since the last event, so that a quick stroke is as round as a slow one.
      const passed = event.getCoalescedEvents?.() ?? [];
      for (const one of passed.length > 0 ? passed : [event]) this.#paintTo(this.#view.onCanvas(one));
    } else if (before) {
      this.#drag(event.pointerId, before, at);
    }
    if (before) this.#pointers.set(event.pointerId, at);
    this.#update();
  }

  #up(event) {
    this.#pointers.delete(event.pointerId);
    this.#end();
    this.#update();
  }

  #turn(event) {
    event.preventDefault();
    // With Shift, some browsers turn a wheel sideways.
    const turn = event.deltaY || event.deltaX;
    if (event.shiftKey) {
      this.#turned -= SIZE_OF_WHEEL * turn;
      const steps = Math.trunc(this.#turned);
      this.#turned -= steps;
      this.#part("size").valueAsNumber += steps;
    } else {
      this.#view.zoom((event.ctrlKey ? ZOOM_OF_PINCH : ZOOM_OF_WHEEL) ** -turn, this.#view.onCanvas(event));
    }
  }

  #drag(id, before, at) {
    const other = [...this.#pointers].find(([one]) => one !== id)?.[1];
    if (!other) {
      this.#view.move(at.x - before.x, at.y - before.y);
      return;
    }
    const distance = (point) => Math.max(1, Math.hypot(point.x - other.x, point.y - other.y));
    this.#view.move((at.x - before.x) / 2, (at.y - before.y) / 2);
    this.#view.zoom(distance(at) / distance(before), { x: (at.x + other.x) / 2, y: (at.y + other.y) / 2 });
  }

  #begin() {
    this.#mask.begin({ adds: this.#adds, snaps: this.#part("snaps").checked });
    this.#start = this.#brush;
    this.#last = this.#view.toPhoto(this.#brush);
  }

  #paintTo(at) {
    const point = this.#view.toPhoto(at);
    this.#mask.paint(this.#last, point, this.#radius / this.#view.scale);
    this.#last = point;
  }

  #interrupt() {
    const { x, y } = this.#brush;
    if (this.#last && Math.hypot(x - this.#start.x, y - this.#start.y) < LEAST_STROKE * this.#view.density) {
      this.#mask.cancel();
      this.#last = null;
    }
    this.#end();
  }

  #end() {
    if (this.#last) this.#mask.end();
    this.#last = null;
  }

  // ---- keyboard ----
  #press(event) {
    const key = keyOf(event);
    const isCommand = event.ctrlKey || event.metaKey;
    if (isCommand && (key === "z" || key === "y")) {
      this.#do(() => (key === "y" || event.shiftKey ? this.#mask.redo() : this.#mask.undo()));
    } else if (!isCommand && (!event.altKey || TYPED_WITH_ALT.includes(key)) && this.#keys[key]) {
      this.#do(this.#keys[key]);
    } else if (!event.target.matches("button, input") && this.#keysBesideControls[event.key]) {
      this.#do(() => this.#keysBesideControls[event.key](event.shiftKey));
    } else {
      return;
    }
    event.preventDefault();
  }

  #smaller = () => this.#part("size").stepDown(KEY_SIZE_STEP);
  #larger = () => this.#part("size").stepUp(KEY_SIZE_STEP);

  #keys = {
    a: () => (this.#part("adds").checked = true),
    r: () => (this.#part("removes").checked = true),
    s: () => (this.#part("snaps").checked = !this.#part("snaps").checked),
    "[": this.#smaller,
    "]": this.#larger,
    ",": this.#smaller,
    ".": this.#larger,
    bracketleft: this.#smaller,
    bracketright: this.#larger,
    "+": () => this.#zoom(ZOOM_STEP),
    "-": () => this.#zoom(1 / ZOOM_STEP),
    0: () => this.#view.fit(this.#mask.size),
  };

  // The arrows move the brush, and the photo where the brush would leave the screen; with Shift they paint.
  #keysBesideControls = {
    ArrowLeft: (paints) => this.#step(-1, 0, paints),
    ArrowRight: (paints) => this.#step(1, 0, paints),
    ArrowUp: (paints) => this.#step(0, -1, paints),
    ArrowDown: (paints) => this.#step(0, 1, paints),
    " ": () => this.#step(0, 0, true),
  };

  #step(dx, dy, paints) {
    const { width, height } = this.#part("paper");
    const step = Math.max(1, KEY_STEP * this.#radius);
    if (paints) this.#begin();
    const wanted = { x: this.#brush.x + dx * step, y: this.#brush.y + dy * step };
    const at = { x: Math.min(width - 1, Math.max(0, wanted.x)), y: Math.min(height - 1, Math.max(0, wanted.y)) };
    this.#view.move(at.x - wanted.x, at.y - wanted.y);
    this.#brush = at;
    if (paints) {
      this.#paintTo(at);
      this.#end();
    }
  }

  // Pointers move faster than the screen shows.
  #update() {
    this.#part("undo").disabled = !this.#mask?.canUndo;
    this.#part("redo").disabled = !this.#mask?.canRedo;
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    requestAnimationFrame(() => {
      this.#isDrawing = false;
      if (this.#mask === null) return;
      const brush = { ...this.#brush, radius: this.#radius };
      this.#view.draw(this.#picture, this.#mask.levels, this.#threshold, brush);
    });
  }
}

// Of a keyboard without Latin letters, such as a Cyrillic one, the key in the place of the English one.
function keyOf({ key, code }) {
  return (/^[ -~]/.test(key) ? key : code.replace("Key", "")).toLowerCase();
}

function isSame(levels, others) {
  return levels.every((level, pixel) => level === others[pixel]);
}
