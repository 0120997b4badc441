// A page of the playground, and what the checks do with it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

export const close = () => browser.close();

export const PNG = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);

/** A page in a window of its own, and everything that it complains of. */
export async function open(url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  const complaints = [];
  const sizes = [];
  page.on("console", (message) => {
    if (/Content Security Policy|Uncaught/.test(message.text())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    const { protocol, hostname } = new URL(request.url());
    if (protocol !== "data:" && protocol !== "blob:" && hostname !== "127.0.0.1") complaints.push(`a request to ${hostname}`);
  });
  page.on("response", async (response) => {
    const { pathname } = new URL(response.url());
    if (pathname === "/" || pathname.startsWith("/playground/page/")) sizes.push((await response.body()).length);
  });
  await page.goto(url);
  await ready(page);
  return { context, page, complaints, sizes };
}

export const ready = (page) => page.waitForSelector("body[data-ready=true]");

export async function reload(page) {
  await page.reload();
  await ready(page);
}

/** Reads something of the page again and again, until it is as expected. */
export async function eventually(read, expected, { within = 6000 } = {}) {
  const deadline = Date.now() + within;
  for (;;) {
    const value = await read();
    if (expected instanceof RegExp ? expected.test(value) : JSON.stringify(value) === JSON.stringify(expected)) return value;
    if (Date.now() > deadline) {
      if (expected instanceof RegExp) assert.match(value, expected);
      else assert.deepEqual(value, expected);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Chooses a radio button by its label, as a click of a user does. */
export const choose = (page, name, value) => page.click(`label:has(> input[name="${name}"][value="${value}"])`);

/** What the page says about the outcome. */
export async function outcome(page) {
  const text = async (selector) => ((await page.$(selector)) ? page.textContent(selector) : "");
  return {
    status: await text("#banner .status"),
    said: await text("#banner .said > b"),
    details: await text("#banner .said > small"),
    code: await text("#banner .chip"),
  };
}

/** Sends the request of the form; returns what the page says. */
export async function send(page) {
  await page.click("#send");
  await page.waitForFunction(() => !document.getElementById("send").disabled, undefined, { timeout: 20_000 });
  return outcome(page);
}

/** Sends a request as a user. */
export async function sendAs(page, user, { workspace, file } = {}) {
  await choose(page, "user", user);
  if (workspace !== undefined) await choose(page, "workspace", workspace);
  if (file) await page.setInputFiles("#file", file);
  return send(page);
}

/** The steps of the chain: `signed-in ok: 12 µs`. The one that decided ends with `!`. */
export const steps = (page) =>
  page.$$eval("#chain li", (items) =>
    items.map((item) => {
      const [, state] = item.className.split(" ");
      const end = item.classList.contains("decides") ? "!" : "";
      return `${item.querySelector(".name").textContent} ${state}${end}`;
    }),
  );

/** The meters: `burst: 9 of 10`. */
export const meters = (page) =>
  page.$$eval("#limits .meter", (items) => items.map((item) => `${item.dataset.policy}: ${item.querySelector(".left").textContent}`));

/** What the gate says is left, in the same form. */
export async function left(page, path = "/api/imgwire/upload-token", workspace) {
  const { token } = await user(page);
  const limits = await page.evaluate(
    async ([path, token, workspace]) => {
      const headers = { Authorization: `Bearer ${token}`, ...(workspace && { "X-Workspace-Id": workspace }) };
      const response = await fetch(`${path}/allowance`, { headers });
      return (await response.json()).limits;
    },
    [path, token, workspace],
  );
  return limits.map(({ policy, remaining, limit }) => `${policy}: ${remaining} of ${limit}`);
}

/** The state of the sandbox, by its own answer. */
export const stateOf = (page) =>
  page.evaluate(async () => {
    const key = new URLSearchParams(location.search).get("key");
    return (await fetch("/playground/state", { headers: { "X-Playground-Key": key } })).json();
  });

/** The chosen demo user. */
export async function user(page) {
  const { users } = await stateOf(page);
  const id = await page.$eval("input[name=user]:checked", (input) => input.value);
  return users.find((user) => user.id === id);
}

/** Uses up the rate of the chosen user, with the requests of the form but without the page. */
async function useUpRate(page) {
  const { token, workspace } = await user(page);
  const statuses = await page.evaluate(
    async ([token, workspace]) => {
      const headers = { Authorization: `Bearer ${token}`, ...(workspace && { "X-Workspace-Id": workspace }) };
      const ask = async () => (await fetch("/api/imgwire/upload-token", { method: "POST", headers })).status;
      return Promise.all(Array.from({ length: 16 }, ask));
    },
    [token, workspace],
  );
  assert(statuses.includes(429), `${statuses}`);
}

/** Uses up the rate of the chosen user and sends one more request, again if a unit came back in between. */
export async function sendAboveRate(page) {
  for (let turn = 1; ; turn += 1) {
    await useUpRate(page);
    const answer = await send(page);
    if (answer.status === "429" || turn === 5) return answer;
  }
}

/** The mood that the switch shows. */
export const mood = (page) => page.evaluate(() => document.querySelector("input[name=mood]:checked")?.value);

export async function setMood(page, mood) {
  await choose(page, "mood", mood);
  await eventually(async () => (await stateOf(page)).imgwire.moods, [mood]);
}

/** What axe-core finds wrong. */
export async function violations(page) {
  // Not by a script element, which the page's policy forbids.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join(" ")}`);
}
