// How files come in: chosen, dropped (folders too), or pasted.

// As carmask.imaging.formats.IMAGE_SUFFIXES. Only what lies in a folder is sorted by name; of what somebody drops
// singly the service says itself what is wrong with it.
const PICTURE = /\.(jpe?g|jpe|jfif|mpo|png|gif|bmp|tiff?|webp|hei[cf]|hif|avif|jp2|jpx|jpf|j2[kc]|jpc|p[nbgp]m|tga)$/i;

const NO_FILE = "That is not a file. Save the photo first, then drop it.";

/**
 * Call `add(files)` with what somebody chooses, drops or pastes, and `tell(sentence)` where that holds no file.
 *
 * parts: the page's elements { choose, chooser }.
 */
export function takeFiles({ choose, chooser }, add, tell) {
  choose.addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    add([...chooser.files]);
    // So that the same photo can be chosen again.
    chooser.value = "";
  });
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length === 0) return;
    event.preventDefault();
    add(files);
  });
  takeDrops(add, tell);
}

function takeDrops(add, tell) {
  const root = document.documentElement;
  // Counts elements entered and left: moving over a child leaves its parent.
  let depth = 0;
  const mark = (by) => {
    depth = Math.max(0, depth + by);
    root.classList.toggle("dropping", depth > 0);
  };
  document.addEventListener("dragenter", () => mark(1));
  document.addEventListener("dragleave", () => mark(-1));
  // Without this the browser would leave the page for the photo.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    mark(-depth);
    // The list is empty once this handler has waited for anything.
    const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
    const found = items.map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile() }));
    try {
      const files = (await Promise.all(found.map(filesOf))).flat();
      if (files.length > 0) add(files);
      else tell(items.length > 0 ? "There are no photos in that folder." : NO_FILE);
    } catch (error) {
      tell(`What was dropped cannot be read (${error.message}).`);
    }
  });
}

async function filesOf({ entry, file }) {
  if (entry?.isDirectory) return (await filesBelow(entry)).sort((one, other) => one.name.localeCompare(other.name));
  return file ? [file] : [];
}

async function filesBelow(folder) {
  const reader = folder.createReader();
  const files = [];
  // It gives some hundred at a time, and none at the end.
  for (let entries; (entries = await called(reader, "readEntries")).length > 0; ) {
    for (const entry of entries) {
      if (entry.isDirectory) files.push(...(await filesBelow(entry)));
      else if (PICTURE.test(entry.name) && !entry.name.startsWith(".")) files.push(await called(entry, "file"));
    }
  }
  return files;
}

function called(owner, method) {
  return new Promise((resolve, reject) => owner[method](resolve, reject));
}
