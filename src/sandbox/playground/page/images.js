// The images of the chosen user or workspace, as the gate lists them. While one is open, the list is read again, each
// time after a longer wait.
import { byId, clock, el, setText } from "./dom.js";
import { headersOf } from "./flow.js";
import { refreshLimits } from "./limits.js";
import { onReturn } from "./server.js";
import { bytes, plural, sentence } from "./text.js";
import { request } from "./who.js";

const FIRST_WAIT = 700;
const LONGEST_WAIT = 10_000;
const LIMIT = 20;

/** Imgwire's words for the states. */
const STATES = {
  PENDING: ["waits for the file", "warn"],
  PROCESSING: ["is processed", "warn"],
  READY: ["ready", "good"],
  QUARANTINE: ["quarantined", "bad"],
};

const isOpen = ({ status }) => status === "PENDING" || status === "PROCESSING";

let wait = FIRST_WAIT;
let timer;
/** Counts reads, so that a late answer does not overwrite a newer one. */
let turn = 0;
/** The items of the list, by the ids of their images. */
let items = new Map();

const address = ({ path }) => `${path}/api/v1/images/`;

function itemOf(image, asked) {
  const signature = JSON.stringify([image.status, image.size_bytes, image.mime_type, asked.token, asked.path, asked.workspace]);
  const known = items.get(image.id);
  if (known?.signature === signature) return known;
  const name = image.original_filename ?? image.id;
  const [state, kind] = STATES[image.status] ?? [image.status, ""];
  const about = [image.mime_type, image.size_bytes && bytes(image.size_bytes), image.created_at && clock(image.created_at)];
  const picture = image.status === "READY" ? el("img", { src: image.cdn_url, alt: "", width: 48, height: 38 }) : el("span", { class: "blank", "aria-hidden": "true" });
  const node = el(
    "li",
    {},
    picture,
    el("div", { class: "who" }, el("b", {}, name), el("small", {}, about.filter(Boolean).join(" · ")), el("span", { class: `state ${kind}`, title: image.status }, state)),
    el("button", { type: "button", class: "ghost small", "aria-label": `Delete ${name}`, click: () => remove(image.id, name, asked) }, "Delete"),
  );
  return { signature, node };
}

function show(asked, { status, body, total }) {
  const images = Array.isArray(body) ? body : [];
  const shown = new Map(images.map((image) => [image.id, itemOf(image, asked)]));
  items = shown;
  const nodes = [...shown.values()].map(({ node }) => node);
  const list = byId("images");
  // A node that stays where it is keeps the focus.
  if (nodes.length !== list.children.length || nodes.some((node, index) => list.children[index] !== node)) list.replaceChildren(...nodes);
  const who = asked.user.subject ?? "the user";
  let said = "";
  if (status === undefined) said = asked.path ? "The gate does not respond." : "Choose a workspace: the path of this route names it.";
  else if (status === 404) said = `The gate shows no images to ${who}.`;
  else if (status !== 200) said = `The gate shows no images: ${sentence(body?.code, { user: who })}`;
  else if (total > LIMIT) said = `The newest ${LIMIT} of ${total}.`;
  else if (total === 0) said = "No images yet.";
  else said = plural(total, "image");
  setText(byId("images-note"), said);
  return images;
}

async function read() {
  clearTimeout(timer);
  const asked = request();
  const mine = ++turn;
  if (asked.route.flow !== "upload" || document.visibilityState !== "visible") return;
  let answer = {};
  if (asked.path) {
    try {
      const response = await fetch(`${address(asked)}?limit=${LIMIT}`, { headers: headersOf(asked) });
      answer = { status: response.status, body: await response.json(), total: Number(response.headers.get("X-Total-Count")) };
    } catch {
      answer = {};
    }
  }
  if (mine !== turn) return;
  if (!show(asked, answer).some(isOpen)) return;
  timer = setTimeout(read, wait);
  wait = Math.min(LONGEST_WAIT, wait * 1.5);
}

/** Reads the list, after a wait in milliseconds. */
export async function refreshImages(after = 0) {
  clearTimeout(timer);
  turn += 1;
  wait = FIRST_WAIT;
  if (after > 0) timer = setTimeout(read, after);
  else await read();
}

async function remove(id, name, asked) {
  const at = [...items.keys()].indexOf(id);
  let said = `${name} is deleted.`;
  try {
    const response = await fetch(`${address(asked)}${id}`, { method: "DELETE", headers: headersOf(asked) });
    if (!response.ok) {
      const { code } = await response.json();
      const why = response.status === 404 ? "only its owner, and the roles in delete_roles, may delete it." : sentence(code, { user: asked.user.subject });
      said = `${name} is not deleted: ${why}`;
    }
  } catch {
    said = `${name} is not deleted: the gate does not respond.`;
  }
  await refreshImages();
  setText(byId("deleted"), said);
  // The focus would be lost with the button.
  const next = byId("images").children[Math.min(at, byId("images").children.length - 1)];
  (next?.querySelector("button") ?? byId("images-title")).focus();
  await refreshLimits();
}

export function startImages() {
  onReturn(refreshImages);
  document.addEventListener("visibilitychange", () => refreshImages());
}

/** Forgets what was said about the last deletion. */
export const clearDeleted = () => setText(byId("deleted"), "");
