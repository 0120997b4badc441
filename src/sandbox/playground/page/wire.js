// The exchange: the request as a curl command, the response, and the gate's log lines about it.
import { byId, el, setText } from "./dom.js";
import { shortened } from "./text.js";

const TABS = [
  ["curl", "curl"],
  ["response", "Response"],
  ["log", "Log line"],
];

let texts = {};
let secrets = [];
let current = "curl";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A request as a curl command. */
export function curl(url, headers, body) {
  const lines = [`curl -sS -i -X POST ${new URL(url, location.href).href}`];
  for (const [name, value] of Object.entries(headers)) lines.push(`  -H ${quoted(`${name}: ${value}`)}`);
  if (body) lines.push(`  -d ${quoted(body)}`);
  return lines.join(" \\\n");
}

function show() {
  const text = texts[current] ?? "No request yet.";
  setText(byId("wire"), shortened(text, secrets));
  byId("wire").setAttribute("aria-labelledby", `tab-${current}`);
  for (const tab of byId("tabs").children) {
    const isCurrent = tab.id === `tab-${current}`;
    tab.setAttribute("aria-selected", String(isCurrent));
    tab.tabIndex = isCurrent ? 0 : -1;
  }
  byId("copy").disabled = texts[current] === undefined;
}

/** Shows an exchange: `{curl, response, log}`. What is missing has not happened yet. */
export function showWire(exchange, newSecrets) {
  texts = exchange;
  secrets = newSecrets;
  show();
}

function choose(name) {
  current = name;
  show();
}

export function startWire() {
  const tabs = TABS.map(([name, label]) => el("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "wire", click: () => choose(name) }, label));
  byId("tabs").replaceChildren(...tabs);
  byId("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = TABS.findIndex(([name]) => name === current);
    const [name] = TABS[(at + step + TABS.length) % TABS.length];
    choose(name);
    byId(`tab-${name}`).focus();
  });
  let timer;
  byId("copy").addEventListener("click", async () => {
    let said = "Copied";
    try {
      await navigator.clipboard.writeText(texts[current]);
    } catch {
      said = "Copy failed";
    }
    setText(byId("copy"), said);
    setText(byId("copied"), said);
    clearTimeout(timer);
    timer = setTimeout(() => {
      setText(byId("copy"), "Copy");
      setText(byId("copied"), "");
    }, 2000);
  });
  show();
}
