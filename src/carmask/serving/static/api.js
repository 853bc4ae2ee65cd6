// The service's HTTP API. Addresses are relative, so that the page works also where a proxy puts it below a path.

/** An answer that is not what was asked for, or none at all. `message` is a sentence for the person. */
export class ServiceError extends Error {
  constructor(message, { status = 0, retryAfter_s = null } = {}) {
    super(message);
    this.name = "ServiceError";
    this.status = status;
    this.retryAfter_s = retryAfter_s;
  }
}

// What to say where something between here and the service answers in its stead, and not in the service's words.
const SENTENCES = {
  401: "This service wants an access token.",
  413: "The photo has more bytes than the service, or a proxy before it, takes.",
  502: "The service does not answer its proxy. Try again in a while.",
  503: "The service is busy. Try again in a while.",
  504: "The service took too long for its proxy. Try again, or with a smaller photo.",
};

const NO_ANSWER = "The service does not answer. Check that it still runs and that you are connected to it.";
const FILE_GONE = "The file has been changed, moved or deleted since it was added. Add it again.";

let token = "";

/** Send this access token from now on. It is kept in this page's memory alone. */
export function useToken(text) {
  token = text;
}

/** What the service says of its network and its limits: `GET /v1/model`. */
export function readModel() {
  return ask("v1/model", {}, (answer) => answer.json());
}

/**
 * Have a photo cut out: `POST /v1/segment`.
 *
 * fields: the form's other fields by name, texts or files; those that are null are left out.
 * Returns what the service made, and what it says of the photo: its size in pixels, the share 0..1 that the mask
 * covers, whether it holds anything, the Dice that it is expected to have (null if the network is not calibrated), and
 * the seconds that this took.
 */
export function segment(file, fields, signal) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== null) form.append(name, value);
  }
  form.append("file", file, file.name);
  return ask("v1/segment", { method: "POST", body: form, signal }, readResult, file);
}

async function readResult(answer) {
  const header = (name) => answer.headers.get(`X-Carmask-${name}`);
  const [height, width] = header("Size").split(",").map(Number);
  return {
    blob: await answer.blob(),
    size: { height, width },
    coverage: Number(header("Coverage")),
    hasVehicle: header("Box") !== "none",
    expectedDice: header("Expected-Dice") === "none" ? null : Number(header("Expected-Dice")),
    seconds: Number(header("Seconds")),
  };
}

// read: takes what is wanted from an answer. file: what is sent, if it is one.
async function ask(address, options, read, file = null) {
  const sent = token;
  const headers = sent ? { Authorization: `Bearer ${sent}` } : {};
  let answer, text;
  try {
    answer = await fetch(address, { ...options, headers, cache: "no-store", credentials: "same-origin" });
    if (answer.ok) return await read(answer);
    text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(file && !(await isReadable(file)) ? FILE_GONE : NO_ANSWER);
  }
  // Another token was given while this one was on its way.
  if (answer.status === 401 && sent !== token) return ask(address, options, read, file);
  throw refusal(answer, text, file);
}

function refusal({ status, headers }, text, file) {
  const retryAfter = headers.get("Retry-After") ?? "";
  const message = messageOf(text) ?? SENTENCES[status] ?? `The service refused (${status}).`;
  return new ServiceError(sentence(message, file), {
    status,
    retryAfter_s: /^\d+$/.test(retryAfter) ? Number(retryAfter) : null,
  });
}

// The service's own words, where it was the service that answered.
function messageOf(text) {
  try {
    return JSON.parse(text).error.message;
  } catch {
    return null;
  }
}

// What is said stands beside the photo, so its name is not said again.
function sentence(message, file) {
  const text = file && message.startsWith(`${file.name}: `) ? message.slice(file.name.length + 2) : message;
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

function isReadable(file) {
  return file.slice(0, 1).arrayBuffer().then(() => true, () => false);
}
