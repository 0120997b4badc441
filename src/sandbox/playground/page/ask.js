// Sends a request as the chosen user, and then the picture.
import { decide, decisionOf, showBroken, showNothingYet, showOutcome, showWaiting } from "./answer.js";
import { showDecision, showIdle } from "./chain.js";
import { byId, isNarrow, scrollTo, segments, setText } from "./dom.js";
import { showCards } from "./events.js";
import { FLOWS, UploadRefused, describe } from "./flow.js";
import { clearDeleted, refreshImages } from "./images.js";
import { clearNote, refreshLimits } from "./limits.js";
import { picture } from "./picture.js";
import { get, onState, post, refresh, state } from "./server.js";
import { MOODS, MOOD_NOTES } from "./text.js";
import { follow, showSends } from "./upload.js";
import { request } from "./who.js";
import { curl, showWire } from "./wire.js";

/** Counts requests and changes of the form, so that a late response does not overwrite what came after it. */
let turn = 0;

/** The exchange with the route that the page asks now. */
let exchange;
const plainFetch = window.fetch.bind(window);
window.fetch = async (url, options = {}) => {
  if (!exchange || url !== exchange.url) return plainFetch(url, options);
  const headers = { ...options.headers, ...exchange.headers };
  Object.assign(exchange, { sent: headers, body: options.body });
  exchange.response = await plainFetch(url, { ...options, headers });
  exchange.at = Date.now();
  exchange.text = await exchange.response.clone().text();
  return exchange.response;
};

/** The request that the button would send, as a curl command. */
function preview() {
  const asked = { ...request(), file: picture() };
  const { url, headers, body } = FLOWS[asked.route.flow].request({ ...asked, path: asked.path ?? asked.route.path });
  showWire({ curl: curl(url, headers, body) }, asked.secrets);
}

/** Shows the form's choice, to which there is no answer yet. */
export function reset(isTyping = false) {
  turn += 1;
  exchange = undefined;
  const { user, route } = request();
  byId("send").disabled = false;
  setText(byId("send"), FLOWS[route.flow].button);
  showSends(route.flow);
  showCards();
  showIdle(false);
  showNothingYet(user, FLOWS[route.flow]);
  preview();
  clearNote();
  clearDeleted();
  // Each letter of a credential would be a failed attempt to sign in.
  const wait = isTyping ? 500 : 0;
  refreshLimits(wait);
  refreshImages(wait);
}

/** The decision line before those about attempts to reach Imgwire. */
const decisionFirst = (lines) => [...lines].sort((one, other) => Boolean(decisionOf(other)) - Boolean(decisionOf(one)));

function responseText({ response, text }) {
  const fields = [...response.headers].map(([name, value]) => `${name}: ${value}\n`);
  return `HTTP/1.1 ${response.status} ${response.statusText}\n${fields.join("")}\n${text}`;
}

async function explain({ isExplained, route, token, workspace, purpose, file }) {
  if (!isExplained) return undefined;
  try {
    return await post("explain", { route: route.path, token, workspace, purpose, file: describe(file) });
  } catch {
    return undefined;
  }
}

async function send() {
  const asked = { ...request(), file: picture() };
  if (!asked.path) return;
  const flow = FLOWS[asked.route.flow];
  const mine = ++turn;
  const isCurrent = () => turn === mine;
  byId("send").disabled = true;
  clearNote();
  clearDeleted();
  showIdle(true);
  showWaiting();
  if (isNarrow()) scrollTo(byId("answer"), "start");
  const explanation = await explain(asked);
  const own = { url: flow.request(asked).url, headers: asked.headers };
  exchange = own;
  let answer;
  let refused;
  try {
    answer = await flow.call(asked);
  } catch (error) {
    refused = error;
  }
  if (exchange === own) exchange = undefined;
  if (!isCurrent()) return;
  if (!own.response) {
    byId("send").disabled = false;
    showIdle(false);
    showBroken(refused?.message ?? "");
    return;
  }
  const id = own.response.headers.get("X-Request-Id");
  // A response without an id is not from the gate's handlers, so the log has no line about it.
  const log = id ? await get(`log?request=${encodeURIComponent(id)}`).catch(() => ({ lines: null })) : { lines: null };
  if (!isCurrent()) return;
  const { code, retryAfter, userMessage } = refused instanceof UploadRefused ? refused : {};
  const { status } = own.response;
  const decision = decide(log.lines, explanation, status, code);
  showDecision(asked.route, decision, explanation);
  showOutcome(asked, decision, { status, code, retryAfter, userMessage, now: own.at });
  showWire(
    {
      curl: curl(own.url, own.sent, own.body),
      response: responseText(own),
      log: log.lines?.length ? decisionFirst(log.lines).join("\n") : "The log has no line about this request here. The terminal may show it, or the log filter hides it.",
    },
    asked.secrets,
  );
  byId("send").disabled = false;
  if (isNarrow()) scrollTo(byId("answer").offsetHeight > innerHeight ? byId("banner") : byId("answer"), byId("answer").offsetHeight > innerHeight ? "center" : "start");
  const following = answer ? follow[asked.route.flow](asked.file, answer, isCurrent) : undefined;
  await refreshLimits();
  await following;
}

function showMoods({ imgwire: { moods } }) {
  const choices = MOODS.map(([value, label]) => ({ value, label }));
  segments(byId("mood"), "mood", choices, moods.length === 1 ? moods[0] : undefined, async (mood) => {
    try {
      await post("imgwire", { mood });
    } finally {
      await refresh();
      showMoods(state);
    }
  });
  const names = moods.map((mood) => MOODS.find(([value]) => value === mood)?.[1] ?? mood);
  setText(byId("mood-note"), moods.length === 1 ? MOOD_NOTES[moods[0]] : `All at once: ${names.join(", ")}.`);
}

export function startAsking() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!byId("send").disabled) send();
  });
  onState((now, before) => {
    showMoods(now);
    if (JSON.stringify(now.rules) !== JSON.stringify(before?.rules)) reset(false);
  });
}
