// The events, as the sandbox received them in place of an app.
import { byId, clock, el, setText } from "./dom.js";
import { refreshImages } from "./images.js";
import { refreshLimits } from "./limits.js";
import { get, onState, state } from "./server.js";
import { bytes } from "./text.js";
import { currentRoute } from "./who.js";

const POLL = 1500;
const KEPT = 100;

/** How many events the sandbox received, as far as the page knows. */
let received = 0;
let isReading = false;

const isShown = () => state?.receivesEvents && currentRoute().flow === "upload";

/** A body that is no event stays readable. */
function parsed(body) {
  try {
    return JSON.parse(body) ?? {};
  } catch {
    return {};
  }
}

function item({ receivedAt, signed, headers, body }) {
  const { type, sequence, data } = parsed(body);
  const about = [data?.subject, data?.workspace, data?.real?.mimeType, data?.real?.size && bytes(data.real.size)].filter(Boolean);
  const sent = Object.entries(headers).map(([name, value]) => `${name}: ${value}\n`);
  return el(
    "li",
    {},
    el(
      "details",
      {},
      el(
        "summary",
        {},
        el("b", {}, String(type ?? "not an event")),
        el("span", { class: signed ? "good" : "bad" }, signed ? "✓ signature" : "✕ signature"),
        el("small", {}, [`${clock(receivedAt)}`, sequence !== undefined && `sequence ${sequence}`, ...about].filter(Boolean).join(" · ")),
      ),
      el("pre", { class: "wire", tabindex: 0, role: "group", "aria-label": "Headers and body" }, `${sent.join("")}\n${body}`),
    ),
  );
}

async function read() {
  if (!isShown() || isReading || document.visibilityState !== "visible") return;
  isReading = true;
  let answer;
  try {
    answer = await get(`events?after=${received}`);
  } catch {
    // The page says elsewhere that the sandbox does not respond.
  }
  isReading = false;
  if (!answer || answer.received === received) return;
  const isFirst = received === 0;
  received = answer.received;
  const list = byId("events");
  list.prepend(...answer.events.map(item).reverse());
  while (list.children.length > KEPT) list.lastElementChild.remove();
  const types = answer.events.map(({ body }) => parsed(body).type);
  setText(byId("events-note"), `${received} received. The newest: ${types.at(-1) ?? "unknown"}.`);
  if (isFirst && answer.events.length === KEPT) return;
  // What they report has changed the list and the storage.
  refreshImages();
  refreshLimits();
}

/** Shows the cards of the flow. */
export function showCards() {
  const isUpload = currentRoute().flow === "upload";
  byId("held").hidden = !isUpload;
  byId("events-card").hidden = !isShown();
  if (received === 0) setText(byId("events-note"), "No event yet. The gate sends one when an upload is ready, quarantined, abandoned or deleted, or differs from what was declared.");
  read();
}

export function startEvents() {
  onState(showCards);
  setInterval(read, POLL);
}
