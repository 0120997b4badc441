// The page's own calls, and the state of the sandbox, which the page polls: another tab or a shell may change it.
import { byId, setText } from "./dom.js";

/** Proves to the sandbox that the request comes from its own page. */
const KEY = { "X-Playground-Key": new URLSearchParams(location.search).get("key") ?? "" };

const POLL = 2000;

let known;
const listeners = [];
const returns = [];

/** The state of the sandbox. */
export let state;

/** Calls `listener` with the state and the previous one, each time when the state changes. */
export function onState(listener) {
  listeners.push(listener);
}

/** Calls `listener` when the sandbox responds again. */
export const onReturn = (listener) => returns.push(listener);

async function call(path, options) {
  const response = await fetch(`/playground/${path}`, options);
  const body = await response.json();
  if (!response.ok) throw new Error(body.message ?? body.code ?? response.statusText);
  return body;
}

export const get = (path) => call(path, { headers: KEY });

export function post(path, body) {
  const headers = { "Content-Type": "application/json", ...KEY };
  return call(path, { method: "POST", headers, body: JSON.stringify(body) });
}

function trouble(text) {
  const isOver = !text && !byId("trouble").hidden;
  byId("trouble").hidden = !text;
  setText(byId("trouble"), text);
  if (isOver) for (const listener of returns) listener();
}

/** Reads the state, and shows it if it has changed. */
export async function refresh() {
  let response;
  try {
    response = await fetch("/playground/state", { headers: KEY });
  } catch {
    trouble("The sandbox does not respond. What this page shows may be out of date.");
    return;
  }
  if (!response.ok) {
    trouble("This page belongs to another run of the sandbox. Open the address that the sandbox printed.");
    return;
  }
  trouble("");
  const text = await response.text();
  if (text === known) return;
  known = text;
  const before = state;
  state = JSON.parse(text);
  for (const listener of listeners) listener(state, before);
}

export function keepFresh() {
  setInterval(() => {
    if (document.visibilityState === "visible") refresh();
  }, POLL);
  addEventListener("focus", refresh);
  document.addEventListener("visibilitychange", refresh);
}
