// The config: edited, checked, applied, and always the one in force.
import assert from "node:assert/strict";
import { choose, eventually, meters, open, outcome, reload, send, sendAs, stateOf, steps, violations } from "./driver.mjs";

const edit = async (page, change) => page.fill("#config", change(await page.inputValue("#config")));

async function apply(page) {
  await page.click("#apply");
  await eventually(() => page.textContent("#verdict"), /^Applied at \d\d:\d\d:\d\d\.$/);
}

async function restore(page) {
  if (await page.isVisible("#restore")) {
    await page.click("#restore");
    await page.waitForSelector("#restore", { state: "hidden" });
  }
}

const selected = (page) => page.$eval("#config", (area) => area.value.slice(area.selectionStart, area.selectionEnd));

/** What the page shows is what the sandbox has in force. */
async function isInForce(page) {
  const { config } = await stateOf(page);
  assert.equal(await page.inputValue("#config"), config.text);
  assert.match(await page.textContent("#in-force"), /^in force since \d\d:\d\d:\d\d$/);
  const numbers = await page.$$eval("#lines .no", (all) => all.length);
  assert.equal(numbers, config.text.split("\n").length);
}

export const configChecks = (url) => ({
  async "faults stand beside their lines while the config is edited, and change nothing"() {
    const { page, complaints } = await open(url);
    await isInForce(page);
    const { config } = await stateOf(page);
    assert(await page.isDisabled("#apply"));
    await edit(page, (text) => text.replace("limit = 30", "limit = -30").replace('kind = "quota"', 'kind = "qouta"'));
    await page.waitForSelector(".line.fault");
    const lines = config.text.split("\n");
    const expected = [lines.indexOf("limit = 30") + 1, lines.indexOf('kind = "quota"') + 1];
    const beside = await page.$$eval(".line.fault", (all) => all.map((line) => [Number(line.querySelector(".no").textContent), line.querySelector(".say").textContent]));
    assert.deepEqual(beside.map(([line]) => line), expected);
    assert.match(beside[0][1], /^policies\.burst\.limit: /);
    assert.match(beside[1][1], /did you mean `quota`/);
    assert.equal(await page.textContent("#in-force"), "edited, not applied");
    await page.click("#apply");
    await eventually(() => page.textContent("#verdict"), "2 errors. The config in force has not changed.");
    await eventually(() => selected(page), "limit = -30");
    await page.click("#faults li:last-child button");
    assert.equal(await selected(page), 'kind = "qouta"');
    assert.equal((await stateOf(page)).config.text, config.text);
    // A reload shows the config in force.
    await reload(page);
    await isInForce(page);
    await edit(page, () => "[server");
    await page.waitForSelector(".line.fault");
    await page.click("#discard");
    await isInForce(page);
    assert.equal(await page.$(".line.fault"), null);
    assert.deepEqual(complaints, []);
  },

  async "an applied config is in force at once, and the page follows it"() {
    const { page, complaints, context } = await open(url);
    const other = await context.newPage();
    await other.goto(url);
    await other.waitForSelector("body[data-ready=true]");
    await edit(page, (text) => text.replace('roles = ["owner", "editor"]', 'roles = ["owner"]').replace('"burst", "daily"]', '"daily"]'));
    await eventually(() => page.textContent("#verdict"), "Valid, not applied yet.");
    await apply(page);
    await isInForce(page);
    const chain = ["signed-in idle", "member idle", "daily idle", "Imgwire idle"];
    assert.deepEqual(await steps(page), chain);
    // Another tab shows it, too.
    await eventually(() => steps(other), chain);
    await isInForce(other);
    const answer = await sendAs(page, "editor");
    assert.deepEqual([answer.status, answer.code], ["403", "workspace_forbidden"]);
    assert.deepEqual(await steps(page), ["signed-in ok", "member no!", "daily off", "Imgwire off"]);
    // The link opens the line of the policy that decided, and each step that of its policy.
    await page.click("#to-policy");
    assert.equal(await selected(page), "[policies.member]");
    await page.click("#chain li:first-child button");
    assert.equal(await selected(page), "[policies.signed-in]");
    assert(await page.$eval("#config", (area) => area === document.activeElement));
    await reload(page);
    await isInForce(page);
    assert.deepEqual(await steps(page), chain);
    await sendAs(page, "owner", { workspace: "ws_2" });
    await eventually(async () => (await meters(page)).map((meter) => meter.split(":")[0]), ["daily"]);
    // The keyboard applies, too.
    await edit(page, (text) => text.replace("burst = 10", "burst = 9"));
    await page.press("#config", "Control+Enter");
    await eventually(() => page.textContent("#verdict"), /^Applied at/);
    await isInForce(page);
    // Edits survive a change by another tab, which the page tells.
    await edit(page, (text) => `${text}# mine\n`);
    await restore(other);
    await eventually(() => page.textContent("#verdict"), /^Another config is in force since .* Your edits are kept/);
    assert.match(await page.inputValue("#config"), /# mine\n$/);
    await page.click("#discard");
    await isInForce(page);
    assert.deepEqual(complaints, []);
  },

  async "a renamed route, several routes and purposes keep the page working"() {
    const { page, complaints } = await open(url);
    await edit(page, (text) =>
      text
        .replace("/api/imgwire/upload-token", "/renamed")
        .concat('\n[policies.avatars]\nkind = "upload_intent"\npurposes = ["avatar"]\nmime_types = ["image/png"]\nmax_size = "1MB"\n')
        .concat('message = { en = "<b>Only</b> small avatars" }\n')
        .concat('\n[[routes]]\npath = "/avatars"\npolicies = ["signed-in", "member", "avatars"]\n'),
    );
    await apply(page);
    assert.equal(await page.textContent("#route-name"), "/renamed");
    assert.equal((await sendAs(page, "owner")).status, "200");
    await page.click("#tab-curl");
    assert.match(await page.textContent("#wire"), /^curl [^\n]*\/renamed /);
    await page.selectOption("#route", "/avatars");
    assert.deepEqual(await steps(page), ["signed-in idle", "member idle", "avatars idle", "Imgwire idle"]);
    let answer = await send(page);
    assert.deepEqual([answer.status, answer.code, answer.said], ["403", "purpose_forbidden", "The request must name its purpose."]);
    // Texts of the config are texts.
    assert.match(answer.details, /The user reads: “<b>Only<\/b> small avatars”/);
    assert.equal(await page.$("#banner b b"), null);
    await eventually(() => page.textContent("#limits"), "The gate denies user_2 before a limit counts: purpose_forbidden.");
    assert.deepEqual(await violations(page), []);
    await choose(page, "purpose", "avatar");
    assert.equal((await send(page)).status, "200");
    await eventually(() => page.textContent("#limits"), "This route has no limits.");
    await page.setInputFiles("#file", { name: "a.gif", mimeType: "image/gif", buffer: Buffer.from("GIF89a") });
    answer = await send(page);
    assert.deepEqual([answer.status, answer.code], ["403", "file_type_forbidden"]);
    await page.setInputFiles("#file", { name: "big.png", mimeType: "image/png", buffer: Buffer.alloc(1_100_000) });
    answer = await send(page);
    assert.deepEqual([answer.status, answer.code], ["403", "file_too_large"]);
    await reload(page);
    assert.equal(await page.textContent("#route-name"), "/avatars");
    await restore(page);
    await eventually(() => page.textContent("#route-name"), "/api/imgwire/upload-token");
    assert.equal((await send(page)).status, "200");
    assert.deepEqual(complaints, []);
  },

  async "rules, skipped and observed policies and faults show at their steps"() {
    const { page, complaints } = await open(url);
    const { imgwire } = await stateOf(page);
    await edit(page, (text) =>
      text
        .replace("[policies.daily]", '[policies.paid]\nkind = "expression"\nallow = "subject.claims.plan == \'pro\'"\nmode = "observe"\n\n[policies.never]\nkind = "expression"\nallow = "false"\nwhen = "false"\n\n[policies.service]\nkind = "remote"\nurl = "URL/none"\n\n[policies.daily]'.replace("URL", imgwire.url))
        .replace('"burst", "daily"]', '"paid", "never", "daily"]'),
    );
    await apply(page);
    assert.equal((await sendAs(page, "editor")).status, "200");
    assert.deepEqual(await steps(page), ["signed-in ok", "member ok", "paid spared", "never skip", "daily ok", "Imgwire ok!"]);
    await edit(page, (text) => text.replace('mode = "observe"\n', "").replace('"never", "daily"]', '"service"]'));
    await apply(page);
    let answer = await send(page);
    assert.deepEqual([answer.status, answer.code], ["403", "rule_forbidden"]);
    assert.deepEqual(await steps(page), ["signed-in ok", "member ok", "paid no!", "service off", "Imgwire off"]);
    answer = await sendAs(page, "owner");
    assert.deepEqual([answer.status, answer.code], ["500", "internal"]);
    assert.deepEqual(await steps(page), ["signed-in ok", "member ok", "paid ok", "service fault!", "Imgwire off"]);
    assert.match(answer.details, /The policy service .* could not decide/);
    await restore(page);
    assert.deepEqual(complaints, []);
  },

  async "a change that waits for a restart says so, also after a reload"() {
    const { page, complaints } = await open(url);
    assert(!(await page.isVisible("#waiting")));
    await edit(page, (text) => text.replace("[telemetry]", "[server.reads]\nlimit = 599\nperiod = \"1m\"\n\n[telemetry]"));
    await apply(page);
    const expected = /^server\.reads\.limit and server\.reads\.period changed, and wait for a restart of the gate\./;
    await eventually(() => page.textContent("#waiting"), expected);
    assert.deepEqual(await violations(page), []);
    await reload(page);
    assert.match(await page.textContent("#waiting"), expected);
    await isInForce(page);
    await restore(page);
    await page.waitForSelector("#waiting", { state: "hidden" });
    assert.equal((await outcome(page)).status, "");
    assert.deepEqual(complaints, []);
  },
});
