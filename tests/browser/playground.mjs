// Drives a real Chromium through the sandbox's page. Arguments: the page's URL, and a folder for screenshots.
import { createServer } from "node:http";
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [url, folder] = process.argv.slice(2);
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

/** A page in a window of its own, and everything that it complains of. */
async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => {
    if (/Content Security Policy|Uncaught/.test(message.text())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    const { protocol, hostname } = new URL(request.url());
    if (protocol !== "data:" && hostname !== "127.0.0.1") complaints.push(`a request to ${hostname}`);
  });
  await page.goto(url);
  await page.waitForSelector("body[data-ready=true]");
  return { context, page, complaints };
}

/** Uploads as someone; gives back what the page says. */
async function uploadAs(page, person, { workspace, file } = {}) {
  await page.check(`input[name=user][value=${person}]`);
  if (workspace !== undefined) await page.selectOption("#workspace", workspace);
  if (file) await page.setInputFiles("#file", file);
  await page.click("#upload");
  await page.waitForFunction(() => !document.getElementById("upload").disabled);
  return page.textContent("#status");
}

/** Has Imgwire behave in a way. */
async function behave(page, how) {
  await page.click(`button[data-how=${how}]`);
  await page.waitForSelector(`button[data-how=${how}][aria-pressed=true]`);
}

const verdicts = (page) => page.$$eval("#chain li", (items) => items.map((item) => item.textContent));

/** What axe-core finds wrong. */
async function violations(page) {
  // Not by a script element, which the page's policy forbids.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
}

const checks = {
  async "each demo person meets what their rules say"() {
    const { page, complaints } = await open();
    const file = {
      name: "dot.png",
      mimeType: "image/png",
      buffer: Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64"),
    };
    assert.match(await uploadAs(page, "editor", { file }), /^200/);
    await page.waitForSelector("#picture", { state: "visible" });
    assert.equal(await page.$eval("#image", (image) => image.decode().then(() => image.naturalWidth)), 1);
    assert.match(await page.textContent("#caption"), /^dot\.png, 70 bytes, READY$/);
    const chain = await verdicts(page);
    assert.deepEqual(chain.map((line) => line.split(" ")[0]), ["signed-in", "member", "burst", "daily"]);
    assert(chain.every((line) => line.includes("allows")));
    assert.match(await page.textContent("#limits"), /daily: 19 of 20 left/);
    assert.match(await page.textContent("#response"), /^HTTP 200 OK[^]*"uploadToken":"ut_/);
    assert.match(await page.textContent("#curl"), /^curl -sS -i -X POST http:.*dot\.png/);

    assert.match(await uploadAs(page, "owner"), /^200/);
    assert.match(await page.textContent("#limits"), /daily: 999 of 1000 left/);
    for (const [person, status, policy] of [
      ["viewer", /^403: workspace_forbidden/, "member"],
      ["stranger", /^403: workspace_forbidden/, "member"],
      ["expired", /^401: credentials_expired/, "signed-in"],
      ["nobody", /^401: not_signed_in/, "signed-in"],
    ]) {
      assert.match(await uploadAs(page, person), status);
      const last = (await verdicts(page)).at(-1);
      assert(last.startsWith(policy) && last.includes("denies"), last);
      assert(!(await page.isVisible("#picture")));
    }
    // The owner of two workspaces must name one.
    assert.match(await uploadAs(page, "owner", { workspace: "" }), /^403: workspace_required/);
    // Ten at once, and no more.
    let said = "";
    for (let turn = 0; turn < 12 && !said.startsWith("429"); turn += 1) said = await uploadAs(page, "editor");
    assert.match(said, /^429: rate_limited\. Try again in \d+ s\.$/);
    assert.deepEqual(complaints, []);
  },

  async "an Imgwire that is slow or broken is what a user would meet"() {
    const { page, complaints } = await open();
    await behave(page, "broken");
    assert.match(await uploadAs(page, "owner"), /^500: imgwire_failed/);
    await behave(page, "gone");
    assert.match(await uploadAs(page, "owner"), /^500: imgwire_failed/);
    await behave(page, "slow");
    const began = Date.now();
    assert.match(await uploadAs(page, "owner"), /^200/);
    assert(Date.now() - began > 2900);
    await behave(page, "fine");
    assert.match(await uploadAs(page, "owner"), /^200/);
    assert.deepEqual(complaints, []);
  },

  async "the config is edited, checked to the line, and put in force"() {
    const { page, complaints } = await open();
    const config = await page.inputValue("#config");
    await page.fill("#config", config.replace("limit = 30", "limit = -30"));
    await page.click("#check");
    await page.waitForSelector("#faults button");
    const line = config.split("\n").indexOf("limit = 30") + 1;
    assert.match(await page.textContent("#faults"), new RegExp(`sandbox\\.toml:${line}:9: policies\\.burst\\.limit`));
    await page.click("#faults button");
    const selected = await page.$eval("#config", (area) => area.value.slice(area.selectionStart, area.selectionEnd));
    assert.equal(selected, "limit = -30");

    await page.fill("#config", config.replace('roles = ["owner", "editor"]', 'roles = ["owner"]'));
    await page.click("#apply");
    await page.waitForFunction(() => document.getElementById("checked").textContent === "The config is applied.");
    assert.match(await uploadAs(page, "editor"), /^403: workspace_forbidden/);
    // The text below the config says the same as before, so only the answer tells when it is in force.
    await Promise.all([
      page.waitForResponse((response) => response.url().includes("/playground/config")),
      page.click("#reset"),
    ]);
    assert.doesNotMatch(await uploadAs(page, "editor"), /^403/);
    assert.deepEqual(complaints, []);
  },

  async "it works by the keyboard alone"() {
    const { page } = await open();
    await page.focus("input[name=user][value=editor]");
    await page.keyboard.press("ArrowDown");
    assert.equal(await page.$eval(":focus", (one) => one.value), "owner");
    while ((await page.evaluate(() => document.activeElement.id)) !== "upload") await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.getElementById("status").textContent.startsWith("200"));
  },

  async "the session's cookie is the browser's alone, and pages of other origins cannot use it"() {
    const { page, context } = await open();
    const signedIn = await page.evaluate(async () => {
      const key = new URLSearchParams(location.search).get("key");
      const { users } = await (await fetch("/playground/state", { headers: { "X-Playground-Key": key } })).json();
      const headers = { Authorization: `Bearer ${users[1].token}` };
      return (await fetch("/api/imgwire/session", { method: "POST", headers })).status;
    });
    assert.equal(signedIn, 204);
    const [cookie] = await context.cookies();
    assert.deepEqual([cookie.name, cookie.httpOnly, cookie.sameSite], ["imgwire_gate", true, "Lax"]);
    assert.equal(await page.evaluate(() => document.cookie), "");
    const ask = (url) =>
      fetch(url, { method: "POST", credentials: "include", headers: { "X-Workspace-Id": "ws_1" } }).then(
        (response) => response.status,
        () => "not to be read",
      );
    assert.equal(await page.evaluate(ask, new URL("/api/imgwire/upload-token", url).href), 200);
    assert.equal(await page.evaluate(() => fetch("/api/imgwire/session").then((answer) => answer.json()).then((answer) => answer.subject)), "user_2");

    // A page of another origin on this machine, which is the same site: the cookie travels, and is refused.
    const foreign = createServer((_, response) => response.setHeader("Content-Type", "text/html").end("<p>foreign")).listen(0, "127.0.0.1");
    const other = await context.newPage();
    await other.goto(`http://127.0.0.1:${foreign.address().port}/`);
    const [answer] = await Promise.all([
      other.waitForResponse((response) => response.request().method() === "POST"),
      other.evaluate((to) => fetch(to, { method: "POST", credentials: "include", mode: "no-cors" }), new URL("/api/imgwire/upload-token", url).href),
    ]);
    // Without the cookie it would be 401.
    assert.equal(answer.status(), 403);
    // Nor does it read anything, or change the sandbox.
    assert.equal(await other.evaluate(ask, new URL("/api/imgwire/upload-token", url).href), "not to be read");
    const changed = await other.evaluate(
      (to) => fetch(to, { method: "POST", headers: { "Content-Type": "application/json" }, body: '{"how":"broken"}' }).then(() => "read", () => "refused"),
      new URL("/playground/imgwire", url).href,
    );
    assert.equal(changed, "refused");
    foreign.close();
  },

  async "nothing is wrong for assistive technology, in light, dark and on a phone"() {
    for (const [name, options] of [
      ["light", { colorScheme: "light" }],
      ["dark", { colorScheme: "dark" }],
      ["narrow", { colorScheme: "light", viewport: { width: 390, height: 844 } }],
    ]) {
      const { page, complaints } = await open(options);
      await uploadAs(page, "owner");
      await page.fill("#config", "nonsense");
      await page.click("#check");
      await page.waitForSelector("#faults button");
      assert.deepEqual(await violations(page), [], name);
      // Nothing is wider than the window.
      assert(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), name);
      writeFileSync(`${folder}/${name}.png`, await page.screenshot({ fullPage: true }));
      assert.deepEqual(complaints, [], name);
    }
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED: ${name}\n${error.stack}`);
  }
}
await browser.close();
process.exit(failed === 0 ? 0 : 1);
