// The session's cookie beside the page.
import { createServer } from "node:http";
import assert from "node:assert/strict";
import { open } from "./driver.mjs";

export const sessionChecks = (url) => ({
  async "the session's cookie is the browser's alone, and pages of other origins cannot use it"() {
    const { page, context } = await open(url);
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
      (to) => fetch(to, { method: "POST", headers: { "Content-Type": "application/json" }, body: '{"mood":"down"}' }).then(() => "read", () => "refused"),
      new URL("/playground/imgwire", url).href,
    );
    assert.equal(changed, "refused");
    foreign.close();
  },
});
