// The outcome: the banner, and what became of the picture.
import { byId, clock, el } from "./dom.js";
import { goToPolicy } from "./config.js";
import { FLOWS } from "./flow.js";
import { bytes, rule, sentence, unquoted } from "./text.js";

const OUTCOMES = ["issued", "created", "repeated", "denied", "faulted", "failed"];

/**
 * The fields of a decision line in the text format. Values are quoted if need be, except for `reason` after `decision:`,
 * which ends before `chain_us`.
 */
function fieldsOf(line) {
  const [, colon, text] = line.match(/ decision(:?) +(request_id=.*)$/) ?? [];
  if (text === undefined) return undefined;
  const fields = {};
  const field = /(\w+)=("(?:[^"\\]|\\.)*"|[^\s"]+) ?/y;
  for (let found = field.exec(text); found; found = field.exec(text)) {
    if (found[1] === "reason" && colon) {
      const start = found.index + "reason=".length;
      const end = text.lastIndexOf(" chain_us=");
      fields.reason = text.slice(start, end < start ? undefined : end);
      if (end < start) break;
      field.lastIndex = end + 1;
    } else {
      fields[found[1]] = found[2].startsWith('"') ? unquoted(found[2]) : found[2];
    }
  }
  return fields;
}

/** The fields of a line that says what the gate decided. */
export function decisionOf(line) {
  let fields;
  try {
    const parsed = JSON.parse(line);
    fields = parsed.target === "decision" ? parsed : undefined;
  } catch {
    fields = fieldsOf(line);
  }
  return OUTCOMES.includes(fields?.outcome) ? fields : undefined;
}

const CODES_OF_FAULTS = { imgwire_failed: "failed", internal: "faulted" };

/**
 * What decided, by the gate's log lines about the request. Without them (a log filter may hide them), by the
 * explanation, if it says the same as the response.
 */
export function decide(lines, explanation, status, code) {
  const logged = (lines ?? []).map(decisionOf).find(Boolean);
  if (logged) {
    const number = (value) => (value === undefined || value === null ? undefined : Number(value));
    return { ...logged, attempts: number(logged.upstream_attempts), ms: number(logged.upstream_ms) };
  }
  if (status === 200) return { outcome: "issued" };
  if (code === "imgwire_failed") return { outcome: "failed" };
  if (lines?.length || ![401, 403, 429, 500].includes(status)) return { outcome: "refused" };
  const last = explanation?.policies?.at(-1);
  if (explanation?.code !== code || !last) return { outcome: "unknown" };
  return { outcome: CODES_OF_FAULTS[code] ?? "denied", policy: last.name, reason: last.reason };
}

function banner(kind, status, title, details, code) {
  const parts = [
    status && el("span", { class: "status" }, String(status)),
    el("div", { class: "said" }, el("b", {}, title), details && el("small", {}, details)),
    code && el("code", { class: "chip" }, code),
  ].filter(Boolean);
  byId("banner").className = `banner ${kind}`;
  byId("banner").replaceChildren(...parts);
}

export function showNothingYet(user, { note }) {
  const who = user.subject ?? (user.id === "nobody" ? "a visitor" : "the user of the credential");
  banner("idle", "", `Send a request as ${who}.`, `${note} The answer, and the policy that decides, appear here.`);
  byId("picture").hidden = true;
}

export function showWaiting() {
  banner("idle", "", "Waiting for the gate …", "");
  byId("picture").hidden = true;
}

export const showBroken = (text) => banner("bad", "", "The gate does not respond.", text);

const at = (seconds, now) => {
  const date = new Date(now + seconds * 1000);
  return seconds < 80_000 ? clock(date) : date.toLocaleString([], { hour12: false });
};

/** Shows the outcome of a request: the decision, and the response to it. */
export function showOutcome(asked, decision, { status, code, retryAfter, userMessage, now }) {
  const { user, workspace, purpose, file, route } = asked;
  const facts = { user: decision.subject ?? user.subject ?? "The user", workspace: decision.workspace ?? workspace, purpose, file };
  const policy = route.policies.find(({ name }) => name === decision.policy);
  const time = `${clock(now)} · `;
  if (status === 200) {
    const where = facts.workspace ? ` to ${facts.workspace}` : "";
    banner("ok", status, `${facts.user === "The user" ? "The request" : facts.user} may upload${where}.`, `${time}Every policy allowed it, and ${FLOWS[route.flow].said}.`, "");
    return;
  }
  let title = sentence(code, facts);
  if (retryAfter && status === 429) title += code === "quota_exhausted" ? ` It resets at ${at(retryAfter, now)}.` : ` The next one passes at ${at(retryAfter, now)}.`;
  const details = el("span", {}, time);
  if (userMessage) details.append(policy ? `The user reads: “${userMessage}” ` : `The gate says: “${userMessage}” `);
  if (policy) {
    const verb = decision.outcome === "faulted" ? "could not decide" : "denied";
    const what = rule(policy);
    details.append(
      "The policy ",
      el("b", {}, policy.name),
      `${what ? ` (${what})` : ""} ${verb}. `,
      el("button", { type: "button", class: "link", id: "to-policy", click: () => goToPolicy(policy.name) }, `Show [policies.${policy.name}]`),
    );
  } else if (decision.outcome === "failed") {
    details.append("Every policy allowed the request. The quotas are unchanged. ");
  } else if (decision.outcome === "unknown") {
    details.append("The log filter hides which policy decided. ");
  }
  banner(status >= 500 ? "warn" : "bad", status, title, details, code);
}

// Imgwire accepts types that this browser may not show.
byId("image").addEventListener("error", () => {
  byId("image").hidden = true;
});

/** `part` is how much of the file was sent, from 0 to 1. */
export function showPicture(file, kind, note, part) {
  byId("picture").hidden = false;
  byId("picture").className = `picture ${kind}`;
  byId("image").hidden = kind !== "ready";
  byId("progress").hidden = part === undefined;
  byId("progress").value = part ?? 0;
  byId("picture-note").replaceChildren(el("b", {}, file.name), `, ${bytes(file.size)}. `, note);
}
