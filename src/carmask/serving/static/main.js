// The page: puts its parts together, and keeps the photos.

import { makeAsker } from "./access.js";
import { readModel } from "./api.js";
import { Backdrop } from "./backdrop.js";
import { Card } from "./card.js";
import { Editor } from "./editor.js";
import { saveEverything } from "./downloads.js";
import { takeFiles } from "./intake.js";
import { Look } from "./look.js";
import { Photo } from "./photo.js";
import { Placement } from "./placement.js";
import { Queue } from "./queue.js";
import { megabytes, megapixels, photos as photosInWords } from "./words.js";

// As many as keep a service busy while photos travel.
const AT_ONCE = 3;
// Cards within this distance of the screen hold their pixels.
const NEAR = "1000px";

const part = (id) => document.getElementById(id);

const queue = new Queue(AT_ONCE, {
  askToken: makeAsker(part("token")),
  sayBusy: (wait_s) => {
    busy = { wait_s, until_ms: performance.now() + 1000 * wait_s };
    update();
  },
});
const backdrop = new Backdrop(
  {
    radios: document.querySelectorAll("input[name=background]"),
    color: part("color"),
    choose: part("picture"),
    chooser: part("picture-chooser"),
    name: part("picture-name"),
  },
  showProblem,
);
const look = new Look(
  {
    radios: document.querySelectorAll("input[name=look]"),
    format: part("format"),
    ownFormat: part("own-format"),
    ownBackground: part("own-background"),
  },
  new Placement(part("placement")),
  backdrop,
  showProblem,
);
const editor = new Editor(part("editor"));
const cards = [];
let model = null;
// How long a busy service is left alone, and until when on the page's clock.
let busy = { wait_s: 0, until_ms: 0 };
// The zip that is being made, as an AbortController.
let zipping = null;

const near = new IntersectionObserver(
  (entries) => {
    // A card may have left and come back since the last call; where it is now is what counts.
    const isNear = new Map(entries.map(({ target, isIntersecting }) => [target, isIntersecting]));
    for (const card of cards) {
      if (isNear.has(card.element)) card.isNear = isNear.get(card.element);
    }
  },
  { rootMargin: NEAR },
);

/** What the service says of itself; asked again where it did not answer. */
function whenModel() {
  if (model === null) {
    model = queue.add(readModel);
    model.then(showModel, (error) => {
      model = null;
      say(error.message);
    });
  }
  return model;
}

function showModel({ name, engine, precision, members, limits }) {
  backdrop.limits = limits;
  part("limits").textContent =
    `JPEG, HEIC, PNG, WebP, AVIF, GIF, BMP, TIFF, JPEG 2000, PNM or TGA, up to ${megabytes(limits.max_bytes)} and ${megapixels(limits.max_pixels)} each`;
  const engines = members ? "" : ` (${engine}, ${precision})`;
  part("network").textContent = `Network: ${name}${engines}.`;
}

function addPhotos(files) {
  if (files.length === 0) return;
  const asked = whenModel();
  for (const file of files) {
    const photo = new Photo(file, chosenVehicles());
    const acts = { remove: removeCard, same: useForAll, edit: (one) => editor.edit(one) };
    const card = new Card(photo, { template: part("card"), look, queue, model: whenModel, acts });
    cards.push(card);
    part("photos").append(card.element);
    near.observe(card.element);
    photo.addEventListener("change", updateSoon);
    photo.analyze(queue, asked);
  }
  update();
}

function removeCard(card) {
  if (!mayLose([card])) return;
  const index = cards.indexOf(card);
  cards.splice(index, 1);
  near.unobserve(card.element);
  card.remove();
  const next = cards[Math.min(index, cards.length - 1)];
  if (next) next.focus();
  else part("choose").focus();
  update();
}

function removeAll() {
  if (!mayLose(cards)) return;
  zipping?.abort();
  for (const card of cards.splice(0)) {
    near.unobserve(card.element);
    card.remove();
  }
  part("choose").focus();
  update();
}

// What was painted by hand exists nowhere else.
function mayLose(removed) {
  const names = removed.filter(({ photo }) => photo.isUnsaved).map(({ photo }) => photo.name);
  return names.length === 0 || confirm(`Lose the corrected ${maskOf(names)}? Nothing was downloaded since.`);
}

function maskOf(names) {
  return names.length === 1 ? `mask of ${names[0]}` : `masks of ${names.length} photos`;
}

function useForAll(threshold) {
  for (const { photo } of cards) photo.choose(threshold);
}

function chosenVehicles() {
  return document.querySelector("input[name=vehicles]:checked").value;
}

function useVehicles() {
  for (const { photo } of cards) photo.chooseVehicles(chosenVehicles());
}

async function downloadAll() {
  if (zipping) {
    zipping.abort();
    return;
  }
  showProblem("");
  const { signal } = (zipping = new AbortController());
  const tell = (made, wanted) => (part("zip").textContent = `Stop (${made} of ${wanted} files)`);
  part("zip").textContent = "Stop";
  try {
    await saveEverything(done(), look, queue, tell, signal);
  } catch (error) {
    if (!signal.aborted) showProblem(`No zip was made. ${error.message}`);
  } finally {
    // What else was asked for is of no use any more.
    zipping.abort();
    zipping = null;
    update();
  }
}

function done() {
  return cards.map(({ photo }) => photo).filter(({ state }) => state === "done");
}

let isUpdating = false;

// A threshold that is used for all photos changes all of them at once.
function updateSoon() {
  if (isUpdating) return;
  isUpdating = true;
  queueMicrotask(() => {
    isUpdating = false;
    update();
  });
}

function update() {
  part("all").hidden = cards.length === 0;
  part("add").classList.toggle("few", cards.length > 0);
  const ready = done();
  const failed = cards.filter(({ photo }) => photo.state === "failed").length;
  const isReady = ready.length > 0 && ready.length + failed === cards.length;
  part("zip").disabled = !isReady && !zipping;
  if (!zipping) part("zip").textContent = "Download all as zip";
  const tried = ready.length + failed;
  Object.assign(part("progress"), { max: Math.max(1, cards.length), value: tried });
  // One photo is done before a bar is read.
  part("progress").hidden = cards.length < 2 || tried === cards.length;
  say(statusOf(ready, failed));
}

function statusOf(ready, failed) {
  const waiting = performance.now() < busy.until_ms ? `The service is busy; trying again in ${busy.wait_s} s.` : "";
  if (cards.length === 0) return waiting;
  const empty = ready.filter(({ covered }) => !covered.hasVehicle).length;
  const counts = [
    `${ready.length} of ${photosInWords(cards.length)} done`,
    ...(failed > 0 ? [`${failed} could not be cut out`] : []),
    ...(empty > 0 ? [`no vehicle found in ${empty}`] : []),
  ];
  return `${counts.join(", ")}. ${waiting}`.trim();
}

function say(words) {
  // What is shown already is not read aloud again.
  if (part("status").textContent !== words) part("status").textContent = words;
}

function showProblem(words) {
  part("problem").textContent = words;
  part("problem").hidden = words === "";
}

part("vehicles").addEventListener("change", useVehicles);
part("zip").addEventListener("click", downloadAll);
part("clear").addEventListener("click", removeAll);
window.addEventListener("beforeunload", (event) => {
  if (editor.isPainted || cards.some(({ photo }) => photo.isUnsaved)) event.preventDefault();
});
takeFiles({ choose: part("choose"), chooser: part("chooser") }, addPhotos, say);
whenModel();
