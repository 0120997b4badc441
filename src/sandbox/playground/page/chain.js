// The chain: the policies of the route, and the call of Imgwire as the last step.
import { byId, el } from "./dom.js";
import { goToPolicy } from "./config.js";
import { FLOWS } from "./flow.js";
import { currentRoute } from "./who.js";
import { plural, rule, took } from "./text.js";

/** Whether the user got a token or an upload. */
const isAllowed = ({ outcome }) => ["issued", "created", "repeated"].includes(outcome);

const SIGNS = { ok: "✓", no: "✕", fault: "!", skip: "–", spared: "~" };
const SAID = { ok: "Allowed", no: "Denied", fault: "Failed", skip: "Skipped", spared: "Not enforced", off: "", idle: "" };

/** The steps before a request. */
const idle = ({ policies, flow }) => [
  ...policies.map((policy) => ({ name: policy.name, state: "idle", detail: rule(policy), policy })),
  { name: "Imgwire", state: "idle", detail: FLOWS[flow].idle },
];

/** What each policy said, in `explanation`, up to the one that decided. */
function passed(policy, explained) {
  const of = (state, detail) => ({ name: policy.name, state, detail, policy });
  if (explained?.verdict === "skip") return of("skip", "skipped: `when` is false");
  if (explained && explained.verdict !== "allow") return of("spared", explained.reason);
  return of("ok", explained ? [explained.reason, took(explained.micros / 1000)].filter(Boolean).join(" · ") : "allowed");
}

function imgwire(decision, flow) {
  const of = (state, detail) => ({ name: "Imgwire", state, detail });
  const calls = decision.attempts > 1 ? plural(decision.attempts, "attempt") : undefined;
  const time = decision.ms === undefined ? undefined : took(decision.ms);
  const detail = (text) => [text, calls, time].filter(Boolean).join(" · ");
  if (isAllowed(decision)) return of("ok", detail(FLOWS[flow].done));
  if (decision.outcome === "failed") return of("no", detail(decision.reason ?? "failed"));
  return of("off", "not called");
}

/**
 * The steps of a decision: `{outcome, policy, reason, attempts, ms}`. The decision is what happened; `explanation` only
 * adds details.
 */
function stepsOf(route, decision, explanation) {
  const { policies } = route;
  const decider = policies.findIndex(({ name }) => name === decision.policy);
  const explained = (policy) => explanation?.policies?.find(({ name }) => name === policy.name);
  if (decision.outcome === "unknown") return idle(route);
  const refused = decision.outcome === "refused";
  const steps = policies.map((policy, index) => {
    if (refused || (decider >= 0 && index > decider)) return { name: policy.name, state: "off", detail: "not reached", policy };
    if (index === decider) return { name: policy.name, state: decision.outcome === "faulted" ? "fault" : "no", detail: decision.reason ?? rule(policy), policy };
    return passed(policy, explained(policy));
  });
  return [...steps, refused ? { name: "Imgwire", state: "off", detail: "not called" } : imgwire(decision, route.flow)];
}

const said = ({ state, policy }) => (state === "no" && !policy ? SAID.fault : SAID[state]);

/** A longer chain has several rows. */
const IN_A_ROW = 7;

function show(steps, decides) {
  const columns = Math.ceil(steps.length / Math.ceil(steps.length / IN_A_ROW));
  byId("chain").style.setProperty("--columns", columns);
  const items = steps.map((step, index) => {
    const isDecider = index === decides;
    const name = step.policy
      ? el("button", { type: "button", class: "link name", title: `Show ${step.name} in the config`, click: () => goToPolicy(step.name) }, step.name)
      : el("b", { class: "name" }, step.name);
    return el(
      "li",
      { class: `step ${step.state}${isDecider ? " decides" : ""}${step.policy ? "" : " imgwire"}${index % columns === 0 ? " leads" : ""}`, "aria-current": isDecider && "step" },
      el("i", { "aria-hidden": "true" }, SIGNS[step.state] ?? (step.policy ? String(index + 1) : "↗")),
      el("div", { class: "step-text" }, name, said(step) && el("span", { class: "unseen" }, ` ${said(step)}: `), el("small", {}, step.detail ?? "")),
    );
  });
  byId("chain").replaceChildren(...items);
}

export function showIdle(isBusy) {
  byId("chain").classList.toggle("busy", isBusy);
  show(idle(currentRoute()), -1);
}

/** Shows a decision, with the step that decided. */
export function showDecision(route, decision, explanation) {
  byId("chain").classList.remove("busy");
  const steps = stepsOf(route, decision, explanation);
  const decider = steps.findIndex(({ state }) => state === "no" || state === "fault");
  show(steps, isAllowed(decision) ? steps.length - 1 : decider);
}
