import { UploadRefused, getUploadToken } from "/get-upload-token.js";

const byId = (id) => document.getElementById(id);

/** An element with a text and classes. The text is never parsed as HTML. */
function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

/** Proves to the sandbox that the request comes from its own page. */
const KEY = { "X-Playground-Key": new URLSearchParams(location.search).get("key") };

async function ask(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...KEY },
    body: JSON.stringify(body),
  });
  return response.json();
}

const state = await (await fetch("/playground/state", { headers: KEY })).json();
let user = state.users[0];

function showUsers() {
  for (const [index, one] of state.users.entries()) {
    const label = element("label");
    const input = element("input");
    input.type = "radio";
    input.name = "user";
    input.value = one.id;
    input.checked = index === 0;
    input.addEventListener("change", () => {
      user = one;
      showWorkspaces();
    });
    label.append(input, ` ${one.label}`);
    byId("users").append(label);
  }
  showWorkspaces();
}

function showWorkspaces() {
  const choices = ["", ...state.workspaces].map((workspace) => {
    const option = element("option", workspace || "(not named)");
    option.value = workspace;
    return option;
  });
  byId("workspace").replaceChildren(...choices);
  byId("workspace").value = user.workspace ?? "";
}

/** The chosen file, or a small sample image. */
async function picture() {
  const [chosen] = byId("file").files;
  if (chosen) return chosen;
  const canvas = element("canvas");
  canvas.width = canvas.height = 96;
  const context = canvas.getContext("2d");
  context.fillStyle = `hsl(${Math.floor(Math.random() * 360)} 70% 50%)`;
  context.fillRect(0, 0, 96, 96);
  context.fillStyle = "white";
  context.fillRect(24, 24, 48, 48);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  return new File([blob], "sample.png", { type: "image/png" });
}

/** The last request to the gate, with its response. */
let wire;
const plainFetch = window.fetch;
window.fetch = async (url, options) => {
  const response = await plainFetch(url, options);
  if (url === state.route) {
    wire = { url: new URL(url, location.href).href, options, response: response.clone() };
  }
  return response;
};

async function showWire() {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const headers = Object.entries(wire.options.headers).map(([name, value]) => ` -H ${quoted(`${name}: ${value}`)}`);
  byId("curl").textContent = `curl -sS -i -X POST ${wire.url}${headers.join("")} -d ${quoted(wire.options.body)}`;
  const fields = [...wire.response.headers].map(([name, value]) => `${name}: ${value}\n`);
  const line = `HTTP ${wire.response.status} ${wire.response.statusText}\n`;
  byId("response").textContent = `${line}${fields.join("")}\n${await wire.response.text()}`;
}

const VERDICTS = { allow: ["✓ allows", "good"], deny: ["✗ denies", "bad"], fault: ["! cannot decide", "warn"], skip: ["– skipped", ""] };

function showChain(explanation) {
  const items = (explanation.policies ?? []).map((policy) => {
    const [text, className] = VERDICTS[policy.verdict];
    const item = element("li");
    item.append(element("strong", policy.name), " ", element("span", `(${policy.kind}) `, "kind"));
    item.append(element("span", text, className));
    if (policy.reason) item.append(element("span", `: ${policy.reason}`, "reason"));
    return item;
  });
  byId("chain").replaceChildren(...items);
}

async function showLimits(headers) {
  const response = await fetch(`${state.route}/allowance`, { headers });
  const answer = await response.json();
  const items = (answer.limits ?? []).map((limit) => {
    const item = element("li");
    const label = element("label", `${limit.policy}: ${limit.remaining} of ${limit.limit} left`);
    const meter = element("meter");
    meter.max = limit.limit;
    meter.low = limit.limit / 4;
    meter.value = limit.remaining;
    label.append(meter);
    item.append(label);
    return item;
  });
  byId("limits").replaceChildren(...items);
}

function say(text, className) {
  byId("status").textContent = text;
  byId("status").className = className;
}

/** The two steps of the upload, as the SDK does them. */
async function upload(file, token) {
  const start = await fetch(`${state.imgwire}/api/v1/images/standard_upload?upload_token=${encodeURIComponent(token)}`, {
    method: "POST",
    headers: { Authorization: `Bearer ${state.clientKey}`, "Content-Type": "application/json" },
    body: JSON.stringify({ file_name: file.name, mime_type: file.type, content_length: file.size }),
  });
  const { image, upload_url: url } = await start.json();
  await fetch(url, { method: "PUT", headers: { "Content-Type": file.type }, body: file });
  return image.id;
}

/** The image that the page shows, or will show. */
let shownImage;

/** Shows an image once Imgwire has processed it, unless another upload began. */
async function showImage(id) {
  shownImage = id;
  const headers = { Authorization: `Bearer ${state.clientKey}` };
  let image;
  do {
    if (image) await new Promise((resolve) => setTimeout(resolve, 100));
    image = await (await fetch(`${state.imgwire}/api/v1/images/${id}`, { headers })).json();
    if (shownImage !== id) return;
  } while (["PENDING", "PROCESSING"].includes(image.status));
  byId("image").src = image.cdn_url;
  byId("caption").textContent = `${image.original_filename}, ${image.size_bytes} bytes, ${image.status}`;
  byId("picture").hidden = false;
}

byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = byId("upload");
  button.disabled = true;
  byId("picture").hidden = true;
  shownImage = undefined;
  say("Requesting a token …", "");
  const file = await picture();
  const workspace = byId("workspace").value || undefined;
  const described = {
    route: state.route,
    token: user.token ?? undefined,
    workspace,
    file: { name: file.name, mimeType: file.type, size: file.size },
  };
  showChain(await ask("/playground/explain", described));
  try {
    const token = await getUploadToken({ url: state.route, token: user.token, workspace, file });
    const id = await upload(file, token);
    say("200: received a token and uploaded the image.", "good");
    showImage(id);
  } catch (refused) {
    if (!(refused instanceof UploadRefused)) throw refused;
    const wait = refused.retryAfter ? ` Try again in ${refused.retryAfter} s.` : "";
    const told = refused.userMessage ? ` ${refused.userMessage}` : "";
    say(`${refused.status}: ${refused.code}.${told}${wait}`, "bad");
  } finally {
    await showWire();
    const headers = user.token ? { Authorization: `Bearer ${user.token}` } : {};
    if (workspace) headers["X-Workspace-Id"] = workspace;
    await showLimits(headers);
    button.disabled = false;
  }
});

byId("copy").addEventListener("click", () => navigator.clipboard.writeText(byId("curl").textContent));

for (const button of byId("imgwire").querySelectorAll("button")) {
  button.addEventListener("click", async () => {
    await ask("/playground/imgwire", { how: button.dataset.how });
    for (const other of byId("imgwire").querySelectorAll("button")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
  });
}

function goTo(line) {
  const config = byId("config");
  const lines = config.value.split("\n");
  const start = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
  config.focus();
  config.setSelectionRange(start, start + (lines[line - 1] ?? "").length);
}

async function config(apply) {
  const { faults, applied } = await ask("/playground/config", { text: byId("config").value, apply });
  const good = applied ? "The config is applied." : "The config is valid.";
  byId("checked").textContent = faults.length === 0 ? good : `${faults.length === 1 ? "1 error" : `${faults.length} errors`}; the config is not applied.`;
  byId("checked").className = faults.length === 0 ? "good" : "bad";
  const items = faults.map((fault) => {
    const item = element("li");
    const button = element("button", fault.text);
    button.type = "button";
    button.addEventListener("click", () => goTo(fault.line));
    item.append(button);
    return item;
  });
  byId("faults").replaceChildren(...items);
}

byId("check").addEventListener("click", () => config(false));
byId("apply").addEventListener("click", () => config(true));
byId("reset").addEventListener("click", () => {
  byId("config").value = state.config;
  config(true);
});

showUsers();
byId("config").value = state.config;
document.body.dataset.ready = "true";
