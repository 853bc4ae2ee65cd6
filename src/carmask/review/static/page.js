"use strict";
// The review page: one photo after the other with the outline of its mask, and a decision on each.

const ADVICE = { accept: "accepted", reject: "rejected", correct: "to correct" };
const LOOKS = { outline: "Outline", dimmed: "Vehicle only", bare: "Photo only" };
const COLUMNS = ["name", "decision", "score", "photo", "result"];

const part = (id) => document.getElementById(id);
const review = JSON.parse(part("review").textContent);
const { items } = review;

// ---- decisions: kept by the browser for this page, by photo and mask ----
const STORE = `carmask-review-${review.id}`;
let decisions = {};
// What can be undone: indexes of photos with the decisions that they had before.
const decided = [];
try {
  decisions = JSON.parse(localStorage.getItem(STORE)) ?? {};
} catch {
  decisions = {};
}
const decisionOf = (item) => decisions[item.key] ?? null;

function decide(index, decision) {
  const { key } = items[index];
  if (decision === null) delete decisions[key];
  else decisions[key] = decision;
  try {
    localStorage.setItem(STORE, JSON.stringify(decisions));
  } catch {
    tell("This browser does not keep decisions. Export them before you close this page.");
  }
}

// ---- what is shown ----
let current = -1;
let look = "outline";

const folderOf = ({ name }) => name.slice(0, Math.max(0, name.lastIndexOf("/")));
const isInFolder = (item) => {
  const folder = part("folder").value;
  return folder === "" || `${folderOf(item)}/`.startsWith(`${folder}/`);
};
const isShown = (item) => {
  const show = part("show").value;
  const decision = decisionOf(item);
  return isInFolder(item) && (show === "all" || show === (decision ?? "left"));
};

function tell(words) {
  part("note").textContent = words;
  part("note").hidden = words === "";
}

/** The next photo from here in a direction (1 or -1) for which this is true, or -1. */
function find(start, step, isWanted) {
  for (let index = start; index >= 0 && index < items.length; index += step) {
    if (isWanted(items[index])) return index;
  }
  return -1;
}

function move(step) {
  const index = find(current + step, step, isShown);
  if (index >= 0) show(index);
}

function chooseAndAdvance(decision) {
  if (current < 0) return;
  decided.push([current, decisionOf(items[current])]);
  decide(current, decision);
  const isLeft = (item) => isInFolder(item) && decisionOf(item) === null;
  const after = find(current + 1, 1, isLeft);
  const next = after >= 0 ? after : find(0, 1, isLeft);
  if (next >= 0 && (part("show").value === "all" || part("show").value === "left")) show(next);
  else update();
}

function undo() {
  if (decided.length === 0) return;
  const [index, before] = decided.pop();
  decide(index, before);
  show(index);
}

function refilter() {
  const from = Math.max(current, 0);
  if (current >= 0 && isShown(items[current])) return update();
  const after = find(from, 1, isShown);
  return show(after >= 0 ? after : find(from, -1, isShown));
}

function show(index) {
  current = index;
  const item = items[index];
  part("figure").hidden = item === undefined;
  part("nothing").hidden = item !== undefined;
  if (item) {
    showPhoto(index);
    part("mask").setAttribute("viewBox", `0 0 ${item.width} ${item.height}`);
    const [outside, ...lines] = part("mask").children;
    for (const line of lines) line.setAttribute("d", item.outline);
    outside.setAttribute("d", `M0,0 H${item.width} V${item.height} H0z ${item.outline}`);
    part("name").textContent = item.name;
    part("result").hidden = item.result_link === null;
    if (item.result_link !== null) part("result").href = item.result_link;
    scrollTo(0, 0);
    const next = find(index + 1, 1, isShown);
    if (next >= 0 && items[next].link !== null) new Image().src = items[next].link;
  }
  update();
}

// The small picture at once; the photo itself when it is loaded, if it is the one whose mask this is.
function showPhoto(index) {
  const { link, width, height, name } = items[index];
  const picture = part("photo");
  picture.alt = `Photo ${name} with the outline of its mask`;
  picture.src = `data:image/jpeg;base64,${part(`preview-${index}`).textContent}`;
  picture.dataset.shows = "preview";
  if (link === null) return;
  const photo = new Image();
  photo.onload = () => {
    if (current !== index || photo.naturalWidth !== width || photo.naturalHeight !== height) return;
    picture.src = link;
    picture.dataset.shows = "photo";
  };
  photo.src = link;
}

function update() {
  const item = items[current];
  const here = items.filter(isInFolder);
  const left = here.filter((one) => decisionOf(one) === null).length;
  const counted = Object.keys(ADVICE).map((decision) => {
    const count = here.filter((one) => decisionOf(one) === decision).length;
    return `${count} ${ADVICE[decision]}`;
  });
  part("left").textContent = `${left} of ${here.length} left; ${counted.join(", ")}`;
  for (const decision of Object.keys(ADVICE)) {
    const button = part(decision);
    button.disabled = item === undefined;
    button.setAttribute("aria-pressed", String(item !== undefined && decisionOf(item) === decision));
  }
  part("undo").disabled = decided.length === 0;
  part("previous").disabled = find(current - 1, -1, isShown) < 0;
  part("next").disabled = find(current + 1, 1, isShown) < 0;
  part("export").disabled = items.every((one) => decisionOf(one) === null);
  part("done").hidden = left > 0 || here.length === 0;
  part("done").textContent = here.length < items.length
    ? `All ${here.length} photos of this folder are decided. Choose another one, or export the decisions.`
    : `All ${items.length} photos are decided. Export the decisions, then run: carmask review apply decisions.csv sorted/`;
  document.title = `${left} left: review of masks`;
  if (item) {
    const score = `${review.isCalibrated ? "expected Dice" : "score"} ${item.score.toFixed(3)}`;
    const empty = item.outline === "" ? ["no vehicle found"] : [];
    const facts = [`${current + 1} of ${items.length}`, score, `${item.width} × ${item.height} px`, ...empty];
    part("facts").textContent = facts.join(" · ");
  }
}

function changeLook() {
  const looks = Object.keys(LOOKS);
  look = looks[(looks.indexOf(look) + 1) % looks.length];
  part("stage").className = look;
  part("outline").querySelector("span").textContent = LOOKS[look];
}

// ---- export ----
/** Where a file is now: the page may have been moved together with it. */
function placeOf(link, place) {
  if (link === null || location.protocol !== "file:") return place;
  const url = new URL(link, location);
  if (url.protocol !== "file:") return place;
  try {
    const path = decodeURIComponent(url.pathname);
    // The host is a Windows server: //server/share/photo.jpg.
    if (url.host !== "") return `//${url.host}${path}`;
    return /^\/[A-Za-z]:/.test(path) ? path.slice(1) : path;
  } catch {
    return place;
  }
}

function exportDecisions() {
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const rows = items.filter((item) => decisionOf(item) !== null).map((item) => [
    item.name,
    decisionOf(item),
    item.score.toFixed(4),
    placeOf(item.link, item.photo),
    placeOf(item.result_link, item.result),
  ]);
  const text = [COLUMNS, ...rows].map((row) => `${row.map(quoted).join(",")}\n`).join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "decisions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// ---- controls ----
const ACTS = {
  a: () => chooseAndAdvance("accept"),
  r: () => chooseAndAdvance("reject"),
  c: () => chooseAndAdvance("correct"),
  z: undo,
  o: changeLook,
  arrowleft: () => move(-1),
  arrowright: () => move(1),
};
const BUTTONS = { accept: "a", reject: "r", correct: "c", undo: "z", outline: "o", previous: "arrowleft", next: "arrowright" };

for (const [id, key] of Object.entries(BUTTONS)) part(id).addEventListener("click", () => ACTS[key]());
part("export").addEventListener("click", exportDecisions);
for (const id of ["folder", "show"]) {
  let isPointed = false;
  part(id).addEventListener("pointerdown", () => { isPointed = true; });
  part(id).addEventListener("keydown", () => { isPointed = false; });
  part(id).addEventListener("change", () => {
    refilter();
    // Keys would choose another entry of the list.
    if (isPointed) part(id).blur();
  });
}
// Of a keyboard without Latin letters, such as a Cyrillic one, the key in the place of the English one.
const keyOf = ({ key, code }) => (/^[ -~]/.test(key) ? key : code.replace("Key", "")).toLowerCase();

document.addEventListener("keydown", (event) => {
  const act = ACTS[keyOf(event)];
  // Ctrl+Z and ⌘Z undo as in other programs; with Shift they would redo.
  const mayHaveCommand = act === undo && !event.shiftKey;
  const isOthers = event.altKey || ((event.ctrlKey || event.metaKey) && !mayHaveCommand);
  if (!act || isOthers || event.target.matches("select")) return;
  event.preventDefault();
  // A key that is held down decides on no photo that nobody has seen.
  if (!event.repeat || event.key.startsWith("Arrow")) act();
});

const folders = new Set();
for (const item of items) {
  const parts = folderOf(item).split("/");
  parts.forEach((_, index) => folders.add(parts.slice(0, index + 1).join("/")));
}
folders.delete("");
for (const folder of ["", ...[...folders].sort()]) part("folder").add(new Option(folder || "all folders", folder));
part("folder").parentElement.hidden = folders.size === 0;
if (!review.isCalibrated) {
  tell(
    `The network ${review.network} has no calibration, so its scores only tell the order of the photos. ` +
      "To get an expected Dice, export the network with calibration.",
  );
}
const first = find(0, 1, (item) => decisionOf(item) === null);
show(first >= 0 ? first : 0);
