// Requests to the server: the key in a header, errors with their hint, and whether the server answers at all.
import { askForKey } from "./key.js";

const KEY = "dcvideogen.key";

/** "lost" when the server stops answering, "back" when it answers again. */
export const server = new EventTarget();
let lost = false;

/** The server refused: message and hint make one line. code: for programs; status: of HTTP. */
export class Refused extends Error {
  constructor(status, { code = "unknown", message = `the server answered with ${status}`, hint = "" } = {}) {
    super(hint ? `${message}; ${hint}` : message);
    Object.assign(this, { status, code });
  }
}

/** No answer came: the network or the server is down. */
export class Unreachable extends Error {
  constructor() {
    super("the server does not answer; this page keeps trying");
  }
}

/** A Response with status 2xx. path: relative to the page. json: a body to send; body: a form. Asks for a key at 401. */
export async function request(path, { method = "GET", json, body, signal } = {}) {
  for (;;) {
    const key = storedKey();
    const response = await send(path, { method, signal, ...bodyOf(json, body), key });
    if (response.ok) return response;
    const refused = await refusal(response);
    if (refused.status !== 401) throw refused;
    // Another request may have been given a key while this one was on its way.
    if (storedKey() === key) sessionStorage.setItem(KEY, await askForKey(key ? refused.message : ""));
  }
}

export const json = async (path, options) => (await request(path, options)).json();
export const blob = async (path, options) => (await request(path, options)).blob();

export const forgetKey = () => sessionStorage.removeItem(KEY);
export const storedKey = () => sessionStorage.getItem(KEY);

async function send(path, { key, headers = {}, ...options }) {
  if (key) headers = { ...headers, Authorization: `Bearer ${key}` };
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "omit", cache: "no-store", referrerPolicy: "no-referrer" });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    gone();
    throw new Unreachable();
  }
  // A proxy answers for a server that is down, in words of its own.
  if ([502, 503, 504].includes(response.status) && !response.headers.get("content-type")?.includes("json")) {
    gone();
    throw new Unreachable();
  }
  if (lost) {
    lost = false;
    server.dispatchEvent(new Event("back"));
  }
  return response;
}

function bodyOf(value, form) {
  if (form) return { body: form };
  if (value === undefined) return {};
  return { body: JSON.stringify(value), headers: { "Content-Type": "application/json" } };
}

async function refusal(response) {
  try {
    return new Refused(response.status, (await response.json()).error);
  } catch {
    return new Refused(response.status);
  }
}

function gone() {
  if (lost) return;
  lost = true;
  server.dispatchEvent(new Event("lost"));
  knock(1000);
}

// One for the whole page, however many requests failed: after 1, 2, 4, … 15 s, each a little different, so that
// many pages do not knock at the same moment at a server that has just started.
function knock(wait) {
  setTimeout(async () => {
    try {
      await send("healthz", {});
    } catch {
      knock(Math.min(15000, wait * 2));
    }
  }, wait * (0.8 + 0.4 * Math.random()));
}
