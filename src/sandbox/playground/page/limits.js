// What is left now, by the gate's own answer, with when more comes.
import { byId, el, setText } from "./dom.js";
import { headersOf } from "./flow.js";
import { picture } from "./picture.js";
import { onReturn, post, state } from "./server.js";
import { bytes, duration } from "./text.js";
import { currentRoute, request } from "./who.js";

/** The last answer: what was asked, and when. */
let last;
let asking = false;
let soon;
let timer;

/** Asks the gate, after a wait in milliseconds. */
export async function refreshLimits(wait = 0) {
  clearTimeout(timer);
  if (wait > 0) {
    timer = setTimeout(refreshLimits, wait);
    return;
  }
  if (asking) {
    soon = true;
    return;
  }
  const asked = request();
  const { workspace, purpose, route, path, user } = asked;
  if (!path) {
    last = undefined;
    show();
    return;
  }
  asking = true;
  const isInPath = path !== route.path;
  const file = picture();
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ workspace: isInPath ? undefined : workspace, purpose, mimeType: file?.type, size: file?.size })) {
    if (value !== undefined) query.set(name, value);
  }
  try {
    const response = await fetch(`${path}/allowance?${query}`, { headers: headersOf(asked) });
    last = { status: response.status, answer: await response.json(), route, user };
  } catch {
    last = undefined;
  }
  asking = false;
  show();
  if (soon) {
    soon = false;
    refreshLimits();
  }
}

const settingsOf = (name) => last.route.policies.find((policy) => policy.name === name);

/** When the next unit comes: for a rate one by one, for a quota all at once. */
function nextAt({ policy, limit, remaining, resetsAt }) {
  if (remaining >= limit) return undefined;
  const full = Date.parse(resetsAt);
  const { settings, periodMilliseconds: period } = settingsOf(policy) ?? {};
  if (settings?.kind !== "rate_limit" || !period) return full;
  const interval = period / settings.limit;
  return full - interval * (limit - remaining - 1);
}

function when(limit, now) {
  const next = nextAt(limit);
  if (next === undefined) return "full";
  const isRate = settingsOf(limit.policy)?.settings?.kind === "rate_limit";
  const wait = duration(next - now);
  return isRate ? `one more in ${wait}` : `resets in ${wait}`;
}

/** Why there is no meter. */
function none() {
  const { status, answer, user } = last;
  if (status === 401) return `The gate does not know ${user.subject ?? "who asks"}, so no limit applies.`;
  if (status === 200 && answer.code) return `The gate denies ${user.subject ?? "the request"} before a limit counts: ${answer.code}.`;
  if (status === 200) return "This route has no limits.";
  return `The gate cannot say: ${status} ${answer.code ?? ""}`.trim();
}

const isTimed = ({ remaining }) => remaining !== undefined;

function meter(name, title, { left, all, text, note }) {
  const bar = el("span");
  bar.style.setProperty("width", `${Math.min(100, (100 * left) / Math.max(1, all))}%`);
  const properties = { role: "meter", class: "bar", "aria-label": `${title}: what is left`, "aria-valuemin": 0, "aria-valuemax": all, "aria-valuenow": Math.min(all, left), "aria-valuetext": text };
  return el(
    "div",
    { class: `meter${left === 0 ? " out" : left <= all / 4 ? " low" : ""}`, "data-policy": name },
    el("div", { class: "meter-text" }, el("b", {}, title), el("span", {}, el("span", { class: "left" }, text), " · ", el("span", { class: "when" }, note))),
    el("div", properties, bar),
  );
}

/** One meter for each part of a storage: what is held lowers it. */
function storageMeters({ policy, images, bytes: size }) {
  const parts = [["images", images, String], ["bytes", size, bytes]].filter(([, part]) => part);
  return parts.map(([name, { limit: all, used }, said]) => {
    const left = Math.max(0, all - used);
    return meter(`${policy} ${name}`, `${policy}: ${name}`, { left, all, text: `${said(left)} of ${said(all)}`, note: `${said(used)} held` });
  });
}

function show() {
  const limits = (last?.answer.limits ?? []).filter(isTimed);
  const storages = (last?.answer.limits ?? []).filter((limit) => !isTimed(limit));
  const now = Date.now();
  const signature = JSON.stringify([last?.status, last?.answer, last?.user.id]);
  const container = byId("limits");
  if (container.dataset.shown !== signature) {
    container.dataset.shown = signature;
    const timed = limits.map((limit) => {
      const { policy, limit: all, remaining } = limit;
      return meter(policy, policy, { left: remaining, all, text: `${remaining} of ${all}`, note: when(limit, now) });
    });
    const meters = [...timed, ...storages.flatMap(storageMeters)];
    container.replaceChildren(...(meters.length || !last ? meters : [el("p", { class: "note" }, none())]));
  }
  for (const limit of limits) {
    const meter = [...container.children].find((child) => child.dataset.policy === limit.policy);
    if (meter) setText(meter.querySelector(".when"), when(limit, now));
  }
  const used = limits.filter(({ policy, limit, remaining }) => settingsOf(policy)?.settings?.kind === "quota" && remaining < limit);
  const button = byId("give-back");
  button.hidden = state.users.length === 0 || used.length === 0;
  const windows = used.map(({ policy }) => settingsOf(policy).settings.window);
  setText(button, `Give the ${windows[0] ?? "day"} back`);
}

export function startLimits() {
  byId("give-back").addEventListener("click", async () => {
    const { token, workspace, purpose, route } = request();
    let said;
    try {
      const { policies } = await post("quota", { route: route.path, token, workspace, purpose });
      said = policies.length ? `${policies.join(", ")}: nothing is used any more.` : "There was nothing to give back.";
    } catch (error) {
      said = `Not given back: ${error.message}`;
    }
    setText(byId("limits-note"), said);
    await refreshLimits();
  });
  // Counts down, and asks again when a unit should have come.
  setInterval(() => {
    if (!last || document.visibilityState !== "visible") return;
    const due = (last.answer.limits ?? []).filter(isTimed).some((limit) => nextAt(limit) <= Date.now());
    if (due || last.route.path !== currentRoute().path) refreshLimits();
    else show();
  }, 500);
  // A command in a shell may have used a unit.
  addEventListener("focus", () => refreshLimits());
  onReturn(refreshLimits);
}

export function clearNote() {
  setText(byId("limits-note"), "");
}
