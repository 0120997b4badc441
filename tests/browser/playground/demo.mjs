// The demo: users, pictures, limits, Imgwire's moods and the exchange.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  PNG,
  choose,
  eventually,
  left,
  meters,
  mood as shownMood,
  open,
  outcome,
  reload,
  send,
  sendAboveRate,
  sendAs,
  setMood,
  stateOf,
  steps,
  user,
  violations,
} from "./driver.mjs";

const IDLE = ["signed-in idle", "member idle", "burst idle", "daily idle", "Imgwire idle"];
const ALLOWED = ["signed-in ok", "member ok", "burst ok", "daily ok", "Imgwire ok!"];

/** Who asks, and what the gate answers. */
const USERS = [
  ["editor", "", "200", "", "user_1 may upload to ws_1.", ALLOWED],
  ["owner", "ws_2", "200", "", "user_2 may upload to ws_2.", ALLOWED],
  ["owner", "ws_1", "200", "", "user_2 may upload to ws_1.", ALLOWED],
  ["owner", "", "403", "workspace_required", "Which workspace? user_2 must choose one.", ["signed-in ok", "member no!", "burst off", "daily off", "Imgwire off"]],
  ["viewer", "", "403", "workspace_forbidden", "user_3 may not upload to this workspace.", ["signed-in ok", "member no!", "burst off", "daily off", "Imgwire off"]],
  ["stranger", "ws_1", "403", "workspace_forbidden", "user_4 may not upload to ws_1.", ["signed-in ok", "member no!", "burst off", "daily off", "Imgwire off"]],
  ["expired", "", "401", "credentials_expired", "The token has expired. The user must sign in again.", ["signed-in no!", "member off", "burst off", "daily off", "Imgwire off"]],
  ["nobody", "ws_1", "401", "not_signed_in", "The user must sign in first.", ["signed-in no!", "member off", "burst off", "daily off", "Imgwire off"]],
];

/** Gives back what user_1 used today. */
async function giveBack(page) {
  await choose(page, "user", "editor");
  await page.waitForSelector("#limits .meter");
  if (await page.isVisible("#give-back")) {
    await page.click("#give-back");
    await page.waitForSelector("#give-back", { state: "hidden" });
  }
}

export const demoChecks = (url) => ({
  async "the first view explains the gate and its chain before any request"() {
    const { page, complaints, sizes } = await open(url);
    assert.match(await page.textContent("header p"), /^Decides who may upload\./);
    assert.deepEqual(await steps(page), IDLE);
    const rules = await page.$$eval("#chain small", (all) => all.map((one) => one.textContent));
    assert.deepEqual(rules, [
      "signed in by app or browser",
      "owner or editor of the workspace",
      "30 per minute per user, 10 at once",
      "20 to 1000 per day per workspace",
      "creates the token",
    ]);
    assert.equal((await outcome(page)).said, "Send a request as user_1.");
    assert.deepEqual(await meters(page), ["burst: 10 of 10", "daily: 20 of 20"]);
    // The links lead to the management listener.
    const { management } = await stateOf(page);
    assert.equal(await page.getAttribute("#health", "href"), `${management}/readyz`);
    assert.equal(await page.getAttribute("#metrics", "href"), `${management}/metrics`);
    assert(sizes.length > 10 && sizes.reduce((sum, size) => sum + size) < 100_000, `${sizes}`);
    assert.deepEqual(complaints, []);
  },

  async "each demo user gets the answer of the gate, and a reload keeps the choice"() {
    const { page, complaints } = await open(url);
    for (const [user, workspace, status, code, said, chain] of USERS) {
      const answer = await sendAs(page, user, { workspace });
      assert.deepEqual([answer.status, answer.code, answer.said], [status, code, said], user);
      assert.deepEqual(await steps(page), chain, user);
      // The log line says the same.
      await page.click("#tab-log");
      assert.match(await page.textContent("#wire"), new RegExp(`status=${status}`));
      if (status === "200") await page.waitForSelector("#picture.ready");
      else assert(!(await page.isVisible("#picture")), user);
      if (["editor", "owner"].includes(user) && workspace !== "") {
        // A slow machine gives the rate limit time to refill.
        const isCurrent = async () => `${await meters(page)}` === `${await left(page, undefined, workspace)}`;
        await eventually(isCurrent, true);
      }
      await reload(page);
      assert.equal(await page.$eval("input[name=user]:checked", (input) => input.value), user);
      assert.equal(await page.$eval("input[name=workspace]:checked", (input) => input.value), workspace);
      assert.deepEqual(await steps(page), IDLE);
      assert.match((await outcome(page)).said, /^Send a request as /);
    }
    assert.deepEqual(complaints, []);
  },

  async "a picture comes by choice, by drop or as a sample, and only an image becomes ready"() {
    const { page, complaints } = await open(url);
    const file = { name: "dot.png", mimeType: "image/png", buffer: PNG };
    assert.match(await page.textContent("#file-name"), /^sample\.png, /);
    assert.equal((await sendAs(page, "owner", { file })).status, "200");
    await page.waitForSelector("#picture.ready");
    assert.equal(await page.$eval("#image", (image) => image.decode().then(() => image.naturalWidth)), 1);
    assert.equal(await page.textContent("#picture-note"), "dot.png, 70 B. Uploaded with the token; Imgwire says READY.");
    await page.click("#tab-curl");
    assert.match(await page.textContent("#wire"), /"name":"dot\.png","mimeType":"image\/png","size":70/);

    for (const text of ["<script>alert(1)</script>", "", "BM is a make of cars", "what is WEBP?", "<svg/>", "\x89PNG"]) {
      await page.setInputFiles("#file", { name: "fake.png", mimeType: "image/png", buffer: Buffer.from(text, "latin1") });
      assert.equal((await send(page)).status, "200", text);
      await page.waitForSelector("#picture.bad");
      assert.match(await page.textContent("#picture-note"), new RegExp(`^fake\\.png, ${text.length} B\\. .* QUARANTINE`), text);
      assert(!(await page.isVisible("#image")), text);
    }

    // A large picture with a long name.
    const large = { name: `${"large-".repeat(30)}.png`, mimeType: "image/png", buffer: Buffer.concat([PNG, Buffer.alloc(10_000_000)]) };
    assert.equal((await sendAs(page, "owner", { file: large })).status, "200");
    await page.waitForSelector("#picture.ready");
    assert.match(await page.textContent("#picture-note"), /^large-.*\.png, 10\.0 MB\. .* READY\.$/);
    assert(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));

    const dropped = await page.evaluateHandle(() => {
      const data = new DataTransfer();
      data.items.add(new File(["GIF89a"], "dropped.gif", { type: "image/gif" }));
      return data;
    });
    await page.dispatchEvent("#drop", "drop", { dataTransfer: dropped });
    assert.equal(await page.textContent("#file-name"), "dropped.gif, 6 B");
    // Another picture is another request.
    assert.deepEqual(await steps(page), IDLE);
    await page.click("#sample");
    assert.match(await page.textContent("#file-name"), /^sample\.png, /);
    assert.deepEqual(complaints, []);
  },

  async "the meters show what is left now and when more comes, and the day can be given back"() {
    const { page, complaints } = await open(url);
    await giveBack(page);
    await eventually(() => meters(page), ["burst: 10 of 10", "daily: 20 of 20"], { within: 25_000 });
    assert.equal((await send(page)).status, "200");
    await eventually(() => meters(page), ["burst: 9 of 10", "daily: 19 of 20"]);
    // A shell uses a unit, and the user comes back to the page.
    const { token } = await user(page);
    const ask = ["-sS", "-o", "/dev/null", "-X", "POST", "-H", `Authorization: Bearer ${token}`, new URL("/api/imgwire/upload-token", url).href];
    execFileSync("curl", ask);
    await page.evaluate(() => dispatchEvent(new Event("focus")));
    await eventually(async () => (await meters(page))[1], "daily: 18 of 20");
    assert.match(await page.textContent("[data-policy=burst] .when"), /^one more in [12] s$/);
    assert.match(await page.textContent("[data-policy=daily] .when"), /^resets in /);
    // The last unit of the rate: both meters stay.
    let answer = await sendAboveRate(page);
    assert.deepEqual([answer.status, answer.code], ["429", "rate_limited"]);
    assert.match(answer.said, /^Too many requests\. The next one passes at \d\d:\d\d:\d\d\.$/);
    assert.deepEqual(await steps(page), ["signed-in ok", "member ok", "burst no!", "daily off", "Imgwire off"]);
    await eventually(async () => (await meters(page))[0], "burst: 0 of 10");
    assert.match((await meters(page))[1], /^daily: \d+ of 20$/);
    // It returns by itself, without a request.
    await eventually(async () => (await meters(page))[0], "burst: 1 of 10", { within: 4000 });
    assert.deepEqual(await meters(page), await left(page));

    // Until the quota is used up.
    await reload(page);
    for (let turn = 0; turn < 60 && answer?.code !== "quota_exhausted"; turn += 1) {
      answer = await send(page);
      if (answer.code === "rate_limited") await page.waitForTimeout(1900);
    }
    assert.match(answer.said, /^The quota is used up\. It resets at /);
    assert.deepEqual(await steps(page), ["signed-in ok", "member ok", "burst ok", "daily no!", "Imgwire off"]);
    await eventually(async () => (await meters(page))[1], "daily: 0 of 20");
    assert.deepEqual(await violations(page), []);
    await page.click("#give-back");
    await eventually(async () => (await meters(page))[1], "daily: 20 of 20");
    assert.equal(await page.textContent("#limits-note"), "daily: nothing is used any more.");
    assert((await left(page)).includes("daily: 20 of 20"));
    // Who is not signed in has no meters.
    await choose(page, "user", "nobody");
    await eventually(() => page.textContent("#limits"), /^The gate does not know who asks/);
    assert.deepEqual(complaints, []);
  },

  async "the switch shows Imgwire's state, and a failure shows at the Imgwire step"() {
    const { page, complaints, context } = await open(url);
    await choose(page, "user", "owner");
    const failed = ["signed-in ok", "member ok", "burst ok", "daily ok", "Imgwire no!"];
    for (const [mood, reason] of [
      ["down", /status 503 · 3 attempts/],
      ["reset", /connection/],
      ["key_refused", /status 401/],
      ["unpaid", /status 402/],
      ["full", /status 402/],
      ["silent", /no response from Imgwire/],
    ]) {
      await setMood(page, mood);
      const answer = await send(page);
      assert.deepEqual([answer.status, answer.code], ["500", "imgwire_failed"], `${mood}: ${JSON.stringify(answer)}`);
      assert.deepEqual(await steps(page), failed, `${mood}: ${JSON.stringify(await steps(page))} ${JSON.stringify(answer)}`);
      assert.match(await page.textContent("#chain li:last-child small"), reason, `${mood}: ${JSON.stringify(await steps(page))} ${JSON.stringify(answer)}`);
      await reload(page);
      assert.equal(await shownMood(page), mood);
    }
    await setMood(page, "quarantine");
    assert.equal((await send(page)).status, "200");
    await page.waitForSelector("#picture.bad");
    await setMood(page, "slow");
    const began = Date.now();
    assert.equal((await send(page)).status, "200");
    assert(Date.now() - began > 2900);

    // A shell and another tab change it as well.
    const { imgwire } = await stateOf(page);
    const patch = (body) => execFileSync("curl", ["-sS", "-X", "PATCH", `${imgwire.url}/emulator`, "-d", JSON.stringify(body)]);
    patch({ billing: "unpaid" });
    await eventually(() => page.textContent("#mood-note"), "All at once: slow, unpaid.");
    assert.equal(await shownMood(page), undefined);
    const other = await context.newPage();
    await other.goto(url);
    await other.waitForSelector("body[data-ready=true]");
    await setMood(other, "up");
    await eventually(() => shownMood(page), "up");
    assert.equal((await send(page)).status, "200");
    assert.deepEqual(complaints, []);
  },

  async "the exchange is short on the screen and whole in the clipboard"() {
    const { page, complaints, context } = await open(url);
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    const copied = async () => {
      await page.click("#copy");
      await eventually(() => page.textContent("#copy"), "Copied");
      return page.evaluate(() => navigator.clipboard.readText());
    };
    await choose(page, "user", "owner");
    // The command of the request that the button would send. It works in a shell.
    assert.match(await page.textContent("#wire"), /Bearer eyJ\w+…[\w-]{6}'/);
    const command = await copied();
    assert.doesNotMatch(command, /…/);
    const answer = execFileSync("sh", ["-c", command]).toString();
    assert.match(answer, /^HTTP\/1\.1 200 OK[^]*"uploadToken":"ut_/);
    await send(page);
    assert.equal(await copied(), command);
    assert.equal(await page.textContent("#copied"), "Copied");
    await page.focus("#tab-curl");
    await page.keyboard.press("ArrowRight");
    assert.equal(await page.$eval(":focus", (tab) => tab.textContent), "Response");
    assert.match(await page.textContent("#wire"), /^HTTP\/1\.1 200 OK\n[^]*ratelimit: "burst";r=\d+;t=\d+, "daily"[^]*"uploadToken":"ut_/);
    await page.keyboard.press("ArrowRight");
    assert.match(await copied(), / decision:? +request_id=.* outcome="?issued"? status=200 .*subject="?user_2/);
    await eventually(() => page.textContent("#copy"), "Copy");
    assert.deepEqual(complaints, []);
  },

  async "it works by the keyboard alone"() {
    const { page } = await open(url);
    await page.focus("input[name=user][value=editor]");
    await page.keyboard.press("ArrowDown");
    assert.equal(await page.$eval(":focus", (one) => one.value), "owner");
    const tabTo = async (selector) => {
      for (let turn = 0; turn < 60; turn += 1) {
        if (await page.$eval(selector, (element) => element === document.activeElement)) return;
        await page.keyboard.press("Tab");
      }
      assert.fail(`the tab key does not reach ${selector}`);
    };
    await tabTo("#send");
    await page.keyboard.press("Enter");
    await eventually(async () => (await outcome(page)).status, "200");
    for (const control of ["input[name=mood]:checked", "#chain button", "#tab-curl", "#copy", "#wire", "#config"]) await tabTo(control);
  },

  async "a sandbox that stopped is not shown as if it ran"() {
    const { page, context } = await open(url);
    await context.setOffline(true);
    await eventually(() => page.textContent("#trouble"), /does not respond/);
    await send(page);
    assert.equal((await outcome(page)).said, "The gate does not respond.");
    assert.deepEqual(await violations(page), []);
    await context.setOffline(false);
    await page.waitForSelector("#trouble", { state: "hidden" });
    await eventually(async () => (await meters(page)).length, 2);
    assert.equal((await sendAs(page, "owner")).status, "200");
  },
});
