// Sends a request as the chosen user, and uploads the picture with the token.
import { UploadRefused, getUploadToken } from "/playground/page/get-upload-token.js";
import { decide, decisionOf, showBroken, showNothingYet, showOutcome, showPicture, showWaiting } from "./answer.js";
import { showDecision, showIdle } from "./chain.js";
import { byId, isNarrow, scrollTo, segments, setText } from "./dom.js";
import { clearNote, refreshLimits } from "./limits.js";
import { picture } from "./picture.js";
import { get, onState, post, refresh, state } from "./server.js";
import { MOODS, MOOD_NOTES } from "./text.js";
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

const describe = (file) => ({ name: file.name, mimeType: file.type, size: file.size });

/** The request that the button would send, as a curl command. */
function preview() {
  const { route, token, headers, workspace, purpose, secrets } = request();
  const all = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }), ...headers };
  const file = picture();
  const body = JSON.stringify({ workspace, purpose, file: file && describe(file) });
  showWire({ curl: curl(route.path, all, body) }, secrets);
}

/** Shows the form's choice, to which there is no answer yet. */
export function reset(isTyping = false) {
  turn += 1;
  exchange = undefined;
  byId("send").disabled = false;
  showIdle(false);
  showNothingYet(request().user);
  preview();
  clearNote();
  // Each letter of a credential would be a failed attempt to sign in.
  refreshLimits(isTyping ? 500 : 0);
}

/** The decision line before those about attempts to reach Imgwire. */
const decisionFirst = (lines) => [...lines].sort((one, other) => Boolean(decisionOf(other)) - Boolean(decisionOf(one)));

function responseText({ response, text }) {
  const fields = [...response.headers].map(([name, value]) => `${name}: ${value}\n`);
  return `HTTP/1.1 ${response.status} ${response.statusText}\n${fields.join("")}\n${text}`;
}

/** A call of Imgwire's API, as the SDK does it. */
async function callImgwire(path, options = {}) {
  const headers = { Authorization: `Bearer ${state.imgwire.clientKey}`, "Content-Type": "application/json" };
  const response = await fetch(`${state.imgwire.url}/api/v1/images/${path}`, { ...options, headers });
  const body = await response.json();
  if (response.ok) return body;
  const { detail } = body;
  throw new Error(typeof detail === "string" ? detail : `${response.status}: ${detail?.map(({ msg }) => msg).join(", ")}`);
}

/** The two steps of the upload. Returns the image's id. */
async function upload(file, token) {
  const started = await callImgwire(`standard_upload?upload_token=${encodeURIComponent(token)}`, {
    method: "POST",
    body: JSON.stringify({ file_name: file.name, mime_type: file.type || undefined, content_length: file.size }),
  });
  const put = await fetch(started.upload_url, { method: "PUT", headers: { "Content-Type": file.type }, body: file });
  if (!put.ok) throw new Error(`the storage answered ${put.status}`);
  return started.image.id;
}

/** Uploads, and follows the image until Imgwire has processed it. */
async function uploadAndFollow(file, token, isCurrent) {
  showPicture(file, "", "Uploading …");
  try {
    const id = await upload(file, token);
    for (;;) {
      const image = await callImgwire(id);
      if (!isCurrent()) return;
      if (image.status === "READY") {
        byId("image").src = image.cdn_url;
        showPicture(file, "ready", "Uploaded with the token; Imgwire says READY.");
        return;
      }
      if (image.status === "QUARANTINE") {
        showPicture(file, "bad", "Uploaded with the token; Imgwire says QUARANTINE and does not deliver it.");
        return;
      }
      showPicture(file, "", `Uploaded with the token; Imgwire says ${image.status} …`);
      await new Promise((resolve) => setTimeout(resolve, 150));
    }
  } catch (error) {
    if (isCurrent()) showPicture(file, "bad", `Imgwire refused the upload: ${error.message}`);
  }
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
  const mine = ++turn;
  const isCurrent = () => turn === mine;
  byId("send").disabled = true;
  clearNote();
  showIdle(true);
  showWaiting();
  if (isNarrow()) scrollTo(byId("answer"), "start");
  const explanation = await explain(asked);
  const own = { url: asked.route.path, headers: asked.headers };
  exchange = own;
  let token;
  let refused;
  try {
    const { token: bearer, workspace, purpose, file, route } = asked;
    token = await getUploadToken({ url: route.path, token: bearer, workspace, purpose, file });
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
  const following = token ? uploadAndFollow(asked.file, token, isCurrent) : undefined;
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
