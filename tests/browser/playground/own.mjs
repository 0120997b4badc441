// A sandbox with a config of the user's own.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { choose, eventually, meters, open, outcome, reload, send, steps, violations } from "./driver.mjs";

export const ownChecks = (url, file, token, longToken) => ({
  async "a config of one's own has no demo users, and the page says what is not possible"() {
    const { page, complaints } = await open(url);
    const names = await page.$$eval("#users b", (all) => all.map((name) => name.textContent));
    assert.deepEqual(names, ["Your credential", "Signed out"]);
    assert.match(await page.textContent("#credential-note"), /^There are no demo users/);
    assert.match(await page.textContent("#emulated"), /^Imgwire is emulated: everything else is as .*gate\.toml says\.$/);
    assert.deepEqual(await violations(page), []);
    assert.deepEqual([(await send(page)).code], ["not_signed_in"]);
    await page.fill("#credential-value", token);
    assert.equal((await outcome(page)).status, "");
    const answer = await send(page);
    assert.deepEqual([answer.status, answer.said], ["200", "user_1 may upload to ws_1."]);
    assert.deepEqual(await steps(page), ["signed-in ok", "member ok", "burst ok", "daily ok", "Imgwire ok!"]);
    await eventually(async () => (await meters(page)).join(), /^burst: (29|30) of 30,daily: 499 of 500$/);
    // Its counters may be those of the app.
    assert(!(await page.isVisible("#give-back")));
    // The whole credential is in the request, and not on the screen.
    await page.click("#tab-curl");
    assert(!(await page.textContent("#wire")).includes(token));
    await page.click("#tab-log");
    assert.match(await page.textContent("#wire"), /"outcome":"issued"|outcome="?issued/);
    await page.fill("#credential-value", "<b>not a token</b>");
    assert.equal((await send(page)).code, "invalid_credentials");
    assert.deepEqual(await steps(page), ["signed-in no!", "member off", "burst off", "daily off", "Imgwire off"]);
    await choose(page, "user", "nobody");
    assert.equal((await send(page)).code, "not_signed_in");
    assert.deepEqual(complaints, []);
  },

  async "a credential with long claims fits, and so does the answer to one that the gate cannot read"() {
    for (const viewport of [{ width: 1280, height: 900 }, { width: 390, height: 844 }]) {
      const { page, complaints, context } = await open(url, { viewport });
      const fits = async () => assert(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
      await page.fill("#credential-value", longToken);
      const answer = await send(page);
      assert.deepEqual([answer.status, answer.said], ["200", `${"u".repeat(200)} may upload to ws_1.`]);
      for (const tab of ["curl", "response", "log"]) {
        await page.click(`#tab-${tab}`);
        await fits();
      }
      // A gate that cannot read the head of a request answers without a body.
      await page.route("**/upload-token", (route) => route.fulfill({ status: 400 }));
      await page.fill("#credential-value", "x".repeat(200_000));
      const refusal = await send(page);
      assert.deepEqual([refusal.status, refusal.said], ["400", "The gate cannot read this request, so no policy was asked."]);
      assert.deepEqual(await steps(page), ["signed-in off", "member off", "burst off", "daily off", "Imgwire off"]);
      await fits();
      assert.deepEqual(complaints, []);
      await context.close();
    }
  },

  async "what the gate cannot read is 400 or 413, and no policy is asked"() {
    const { page, complaints } = await open(url);
    await page.fill("#credential-value", token);
    const nothing = ["signed-in off", "member off", "burst off", "daily off", "Imgwire off"];
    for (const [length, status, code] of [[300, "400", "bad_request"], [20_000, "413", "body_too_large"]]) {
      await page.fill("#workspace-name", "w".repeat(length));
      const answer = await send(page);
      assert.deepEqual([answer.status, answer.code], [status, code]);
      assert.match(answer.said, /no policy was asked/);
      assert.deepEqual(await steps(page), nothing);
    }
    await page.fill("#workspace-name", "ws_9");
    assert.deepEqual([(await send(page)).code], ["workspace_forbidden"]);
    assert.deepEqual(complaints, []);
  },

  async "the file is read again on demand, and a faulty one changes nothing"() {
    const { page, complaints } = await open(url);
    const text = readFileSync(file, "utf8");
    assert.equal(await page.inputValue("#config"), text);
    assert(await page.$eval("#config", (area) => area.readOnly));
    assert.equal(await page.textContent("#apply"), "Reload gate.toml");
    writeFileSync(file, text.replace("limit = 500", "limit = -5"));
    await eventually(() => page.textContent("#waiting"), /^gate\.toml has changed on disk/);
    await page.click("#apply");
    await page.waitForSelector(".line.fault");
    assert.equal(await page.textContent("#verdict"), "1 error. The config in force has not changed.");
    assert.equal(await page.textContent("#in-force"), "as on disk, not applied");
    await reload(page);
    assert.equal(await page.inputValue("#config"), text);
    writeFileSync(file, text.replace("limit = 500", "limit = 400"));
    await page.click("#apply");
    await eventually(() => page.textContent("#verdict"), /^Applied at/);
    // Lines that end as on Windows are no edit.
    writeFileSync(file, readFileSync(file, "utf8").replaceAll("\n", "\r\n"));
    await Promise.all([page.waitForResponse(/\/playground\/config$/), page.click("#apply")]);
    await eventually(() => page.textContent("#in-force"), /^in force since/);
    assert(!(await page.isVisible("#discard")));
    await page.fill("#credential-value", token);
    await eventually(async () => (await meters(page))[1], /daily: \d+ of 400/);
    writeFileSync(file, text);
    await page.click("#apply");
    await eventually(() => page.inputValue("#config"), text);
    assert.deepEqual(complaints, []);
  },
});
