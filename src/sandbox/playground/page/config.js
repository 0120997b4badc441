// The config: an editor, which shows the config in force until it is edited.
import { byId, clock, el, scrollTo, setText } from "./dom.js";
import { onState, post, refresh, state } from "./server.js";
import { plural } from "./text.js";
import { highlight, lineOfPolicy } from "./toml.js";

const CHECK_AFTER = 400;

const input = byId("config");

/** The config in force, as the editor knows it. */
let base = "";
/** What the last check of the text found. */
let found = { faults: [], warnings: [] };
let applied = "";
let changedElsewhere = "";
let checks = 0;
let timer;

const isEditable = () => state.config.default !== null;

/** A text as a text area has it. */
const plain = (text) => text.replace(/\r\n?/g, "\n");

const isEdited = () => input.value !== base;

function showLines() {
  const notes = new Map();
  for (const [kind, list] of [["warning", found.warnings], ["fault", found.faults]]) {
    for (const { line, text } of list) if (line) notes.set(line, { kind, text: [notes.get(line)?.text, text].filter(Boolean).join("; ") });
  }
  const lines = highlight(input.value).map((tokens, index) => {
    const note = notes.get(index + 1);
    return el(
      "div",
      { class: `line${note ? ` ${note.kind}` : ""}` },
      el("span", { class: "no" }, String(index + 1)),
      el("span", { class: "code" }, ...tokens.map(([kind, text]) => (kind ? el("span", { class: `t-${kind}` }, text) : text))),
      note && el("span", { class: "say" }, note.text),
    );
  });
  byId("lines").replaceChildren(...lines);
}

function lineHeight() {
  return byId("lines").firstElementChild?.offsetHeight || 20;
}

/** Selects a line in the editor, and brings it into view. */
function goTo(line) {
  const lines = input.value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
  input.focus({ preventScroll: true });
  input.setSelectionRange(start, start + (lines[line - 1] ?? "").length);
  const editor = byId("editor");
  editor.scrollTop = Math.max(0, (line - 1) * lineHeight() - editor.clientHeight / 3);
  editor.scrollLeft = 0;
  scrollTo(editor, "nearest");
}

export function goToPolicy(name) {
  const line = lineOfPolicy(input.value, name);
  if (line) goTo(line);
  else setText(byId("verdict"), `The edited config has no policy ${name}.`);
}

function showFaults() {
  const items = [["warning", found.warnings], ["fault", found.faults]].flatMap(([kind, list]) =>
    list.map(({ line, text }) =>
      el("li", { class: kind }, line ? el("button", { type: "button", class: "link", click: () => goTo(line) }, `Line ${line}`) : "", el("span", {}, text)),
    ),
  );
  byId("faults").replaceChildren(...items);
  input.setAttribute("aria-invalid", String(found.faults.length > 0));
}

function verdict() {
  const count = found.faults.length;
  if (count > 0) return [`${plural(count, "error")}. The config in force has not changed.`, "bad"];
  if (changedElsewhere) return [changedElsewhere, "warn"];
  if (isEdited()) return [isEditable() ? "Valid, not applied yet." : "The file is valid, not applied yet.", "warn"];
  if (applied) return [applied, "good"];
  if (isEditable()) return ["Routes, policies and identities apply at once.", ""];
  return [state.config.isFile ? "Edit the file in your editor, then reload it here." : "This config does not come from a file, so it cannot be reloaded.", ""];
}

function show() {
  const { file, since, waiting, hasChangedOnDisk, isFile, text, default: original } = state.config;
  const name = file.split("/").at(-1);
  setText(byId("config-title"), name);
  const edited = isEdited();
  setText(byId("in-force"), edited ? (isEditable() ? "edited, not applied" : "as on disk, not applied") : `in force since ${clock(since)}`);
  byId("in-force").classList.toggle("warn", edited);
  const notes = [
    waiting.length > 0 && `${waiting.join(" and ")} changed, and ${waiting.length > 1 ? "wait" : "waits"} for a restart of the gate.${isEditable() ? " This sandbox always starts with its own config." : ""}`,
    hasChangedOnDisk && !edited && `${name} has changed on disk. Reload it to apply it.`,
  ].filter(Boolean);
  byId("waiting").hidden = notes.length === 0;
  setText(byId("waiting"), notes.join(" "));
  input.readOnly = !isEditable();
  setText(byId("apply"), isEditable() ? "Apply" : `Reload ${name}`);
  byId("apply").disabled = isEditable() && !edited;
  byId("apply").hidden = !isEditable() && !isFile;
  byId("discard").hidden = !edited;
  byId("restore").hidden = !isEditable() || text === original;
  const [said, kind] = verdict();
  setText(byId("verdict"), said);
  byId("verdict").className = kind;
}

function setInput(given, findings) {
  const text = plain(given);
  if (input.value !== text) input.value = text;
  found = findings;
  showLines();
  showFaults();
  show();
}

async function check() {
  const mine = ++checks;
  const text = input.value;
  if (!isEdited()) {
    setInput(text, { faults: [], warnings: [] });
    return;
  }
  const result = await post("config", { text, apply: false }).catch(() => undefined);
  if (result && mine === checks && input.value === text) setInput(text, result);
}

async function apply(text) {
  checks += 1;
  clearTimeout(timer);
  let result;
  try {
    result = await post("config", { text, apply: true });
  } catch (error) {
    setText(byId("verdict"), `Not applied: ${error.message}`);
    byId("verdict").className = "bad";
    return;
  }
  if (result.applied) {
    base = plain(result.text);
    // The rest of the page follows before this part says so.
    await refresh();
  }
  changedElsewhere = "";
  applied = result.applied ? `Applied at ${clock(Date.now())}.` : "";
  setInput(result.text ?? input.value, result);
  if (!result.applied && result.faults[0]?.line) goTo(result.faults[0].line);
}

export function startConfig() {
  input.addEventListener("input", () => {
    applied = "";
    checks += 1;
    // The old findings belong to the old lines.
    setInput(input.value, { faults: [], warnings: [] });
    clearTimeout(timer);
    timer = setTimeout(check, CHECK_AFTER);
  });
  input.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter" && !byId("apply").disabled) apply(input.value);
  });
  byId("apply").addEventListener("click", () => apply(isEditable() ? input.value : null));
  byId("discard").addEventListener("click", () => {
    changedElsewhere = "";
    base = plain(state.config.text);
    setInput(base, { faults: [], warnings: [] });
    input.focus({ preventScroll: true });
  });
  byId("restore").addEventListener("click", () => apply(state.config.default));
  onState(({ config, rules }, before) => {
    const edited = before && isEdited();
    const inForce = plain(config.text);
    const isNew = inForce !== base;
    if (!edited) {
      base = inForce;
      if (isNew) applied = "";
      setInput(base, isNew ? { faults: [], warnings: [] } : found);
      // The policies of the chain above are what the reader looks for.
      const first = !before && lineOfPolicy(base, rules.routes[0]?.policies[0]?.name ?? "");
      if (first) byId("editor").scrollTop = (first - 1) * lineHeight() + 4;
    } else {
      // Another tab has applied a config.
      if (isNew) changedElsewhere = `Another config is in force since ${clock(config.since)}. Your edits are kept; discard them to see it.`;
      base = inForce;
      show();
    }
  });
}
