// The second flow: uploads through the gate, with the user's images, the storage and the events.
import assert from "node:assert/strict";
import { PNG, choose, eventually, meters, open, outcome, reload, send, setMood, stateOf, steps, violations } from "./driver.mjs";

const ALLOWED = ["signed-in ok", "member ok", "pictures ok", "burst ok", "space ok", "Imgwire ok!"];

/** The images in the list: `sample.png: ready`. */
export const images = (page) =>
  page.$$eval("#images li", (items) => items.map((item) => `${item.querySelector("b").textContent}: ${item.querySelector(".state").textContent}`));

/** The types of the events, the newest first. */
const events = (page) => page.$$eval("#events summary b", (items) => items.map((item) => item.textContent));

/** The meters of the storage. */
const held = async (page) => (await meters(page)).filter((meter) => meter.startsWith("space"));

/** Chooses the second flow as a user. */
export async function chooseFlow(page, user = "editor", workspace) {
  await choose(page, "flow", "upload");
  await choose(page, "user", user);
  if (workspace !== undefined) await choose(page, "workspace", workspace);
  await eventually(() => page.textContent("#images-note"), /image|No |The gate/);
}

/** Creates an upload, later if the rate is used up. */
export async function create(page, sends = "file") {
  await choose(page, "sends", sends);
  for (;;) {
    const answer = await send(page);
    if (answer.code !== "rate_limited") return answer;
    await page.waitForTimeout(1900);
  }
}

/** Deletes all images in the list. */
export async function clear(page) {
  for (let count = (await images(page)).length; count > 0; count -= 1) {
    await page.click("#images li button");
    await eventually(async () => (await images(page)).length, count - 1);
  }
  await eventually(() => held(page).then((all) => all[0]), "space images: 5 of 5");
}

export const uploadChecks = (url) => ({
  async "an upload through the gate is listed, followed and reported, and its space is free again when it is deleted"() {
    const { page, complaints } = await open(url);
    assert.equal(await page.textContent("#send"), "Request a token and upload");
    assert(!(await page.isVisible("#held")));
    await chooseFlow(page);
    assert.equal(await page.textContent("#route-name"), "/imgwire");
    const rules = await page.$$eval("#chain small", (all) => all.map((one) => one.textContent));
    assert.deepEqual(rules.slice(2), ["png, jpeg, gif or webp, up to 2MB", "30 per minute per user, 10 at once", "up to 5 images and 1MB or 20MB per workspace", "creates the image"]);
    await clear(page);
    const before = (await events(page)).length;
    const answer = await create(page);
    assert.deepEqual([answer.status, answer.said], ["200", "user_1 may upload to ws_1."]);
    assert.match(answer.details, /Every policy allowed it, and Imgwire created the image\./);
    assert.deepEqual(await steps(page), ALLOWED);
    await page.waitForSelector("#picture.sent");
    await eventually(() => images(page), ["sample.png: ready"]);
    await eventually(() => page.$eval("#images img", (image) => image.naturalWidth), 224);
    await eventually(async () => (await events(page))[0], "upload.ready", { within: 12_000 });
    const [images_left, bytes_left] = await held(page);
    assert.equal(images_left, "space images: 4 of 5");
    assert.match(bytes_left, /^space bytes: 9\d\d\.\d kB of 1\.0 MB$/);
    // The event is there as it was sent.
    const summary = await page.textContent("#events li:first-child summary");
    assert.match(summary, /^upload\.ready✓ signature\d\d:\d\d:\d\d · sequence \d+ · user_1 · ws_1 · image\/png · [\d.]+ kB$/);
    await page.click("#events li:first-child summary");
    const sent = await page.textContent("#events li:first-child pre");
    assert.match(sent, /^webhook-id: msg_[^]*webhook-signature: v1,[^]*\n\n\{"type":"upload\.ready",/);
    await page.click("#tab-curl");
    assert.match(await page.textContent("#wire"), /\/imgwire\/api\/v1\/images\/standard_upload [^]*"file_name":"sample\.png"/);
    await page.click("#tab-log");
    assert.match(await page.textContent("#wire"), / outcome="?created"? /);
    // A reload keeps the flow, the images and the events.
    await reload(page);
    await eventually(() => images(page), ["sample.png: ready"]);
    await eventually(async () => (await events(page)).length > before, true);
    await page.click("#images li button");
    await eventually(() => images(page), []);
    assert.equal(await page.textContent("#deleted"), "sample.png is deleted.");
    assert.equal(await page.$eval(":focus", (one) => one.id), "images-title");
    await eventually(async () => (await held(page))[0], "space images: 5 of 5");
    await eventually(async () => (await events(page))[0], "image.deleted");
    // The other flow is as it was.
    await choose(page, "flow", "token");
    assert(!(await page.isVisible("#held")));
    assert.equal((await send(page)).status, "200");
    await page.waitForSelector("#picture.ready");
    assert.deepEqual(complaints, []);
  },

  async "a full storage, a wrong type, another file and a missing one are said in plain English"() {
    const { page, complaints } = await open(url);
    await chooseFlow(page, "owner", "ws_2");
    await clear(page);
    for (let count = 1; count <= 3; count += 1) {
      assert.equal((await create(page, "nothing")).status, "200");
      await eventually(async () => (await images(page)).length, count);
    }
    assert.deepEqual(await images(page), Array(3).fill("sample.png: waits for the file"));
    const full = await create(page, "file");
    assert.deepEqual([full.status, full.code], ["429", "storage_full"]);
    assert.equal(full.said, "There is no room for this image. Delete one, or wait until open uploads are done.");
    assert.deepEqual(await steps(page), ["signed-in ok", "member ok", "pictures ok", "burst ok", "space no!", "Imgwire off"]);
    assert.deepEqual(await violations(page), []);
    // Each of them is abandoned and reported, and then there is room.
    await eventually(() => images(page), [], { within: 60_000 });
    await eventually(async () => (await held(page))[0], "space images: 5 of 5");
    await eventually(async () => (await events(page)).slice(0, 3), Array(3).fill("upload.abandoned"));
    assert.equal((await create(page, "other")).status, "200");
    await eventually(() => events(page).then((all) => all.slice(0, 2).sort()), ["upload.mismatched", "upload.ready"], { within: 12_000 });
    assert.match(await page.textContent("#images li:first-child small"), /^image\/gif · 35 B/);
    await page.setInputFiles("#file", { name: "text.txt", mimeType: "text/plain", buffer: Buffer.from("text") });
    const type = await create(page, "file");
    assert.deepEqual([type.status, type.code, type.said], ["403", "file_type_forbidden", "Files of type text/plain are not allowed."]);
    await page.setInputFiles("#file", { name: "dot.png", mimeType: "image/png", buffer: PNG });
    await setMood(page, "key_refused");
    const refused = await create(page, "file");
    assert.deepEqual([refused.status, refused.code, refused.said], ["500", "imgwire_failed", "Imgwire did not do its part. The user can try again later."]);
    assert.match(refused.details, /Every policy allowed the request\./);
    await setMood(page, "up");
    await clear(page);
    assert.deepEqual(complaints, []);
  },

  async "only members see the images, and only the owner and the delete_roles delete them"() {
    const { page, complaints } = await open(url);
    await chooseFlow(page, "owner", "ws_1");
    await clear(page);
    assert.equal((await create(page)).status, "200");
    await eventually(() => images(page), ["sample.png: ready"]);
    await chooseFlow(page, "editor", "");
    await eventually(() => images(page), ["sample.png: ready"]);
    await page.click("#images li button");
    await eventually(() => page.textContent("#deleted"), "sample.png is not deleted: only its owner, and the roles in delete_roles, may delete it.");
    for (const [user, said] of [
      ["viewer", "The gate shows no images to user_3."],
      ["expired", "The gate shows no images: The token has expired. The user must sign in again."],
      ["nobody", "The gate shows no images: the user must sign in first."],
    ]) {
      await choose(page, "user", user);
      await eventually(() => page.textContent("#images-note"), said);
      assert.deepEqual(await images(page), []);
    }
    await chooseFlow(page, "owner", "ws_1");
    await eventually(async () => (await images(page)).length, 1);
    await clear(page);
    assert.deepEqual(complaints, []);
  },

  async "the part of the file that was sent shows, and a PUT that fails is said"() {
    const { page } = await open(url);
    await chooseFlow(page);
    let release;
    const released = new Promise((resolve) => (release = resolve));
    await page.route(/\/upload\//, async (route) => {
      await released;
      await route.abort();
    });
    await create(page);
    await page.waitForSelector("#progress", { state: "visible" });
    assert.match(await page.textContent("#picture-note"), /Sending …$/);
    release();
    await eventually(() => page.textContent("#picture-note"), /The file was not sent: the storage does not respond\.$/);
    assert(!(await page.isVisible("#progress")));
    await page.unroute(/\/upload\//);
    await eventually(async () => (await images(page)).length, 1);
    await clear(page);
  },

  async "the second flow works by the keyboard, and asks less often the longer an upload is open"() {
    const { page } = await open(url);
    await chooseFlow(page);
    await clear(page);
    await page.focus("input[name=flow]:checked");
    await page.keyboard.press("ArrowLeft");
    assert.equal(await page.textContent("#route-name"), "/api/imgwire/upload-token");
    await page.keyboard.press("ArrowRight");
    assert.equal(await page.textContent("#route-name"), "/imgwire");
    await create(page, "nothing");
    const reads = [];
    page.on("request", (request) => {
      if (/\/api\/v1\/images\/\?/.test(request.url())) reads.push(Date.now());
    });
    await page.waitForTimeout(9000);
    assert(reads.length >= 3 && reads.length <= 7, `${reads.length} reads in nine seconds`);
    await page.focus("#images li button");
    await page.keyboard.press("Enter");
    await eventually(() => images(page), []);
    const reached = async () => reads.length;
    const after = await reached();
    await page.waitForTimeout(3000);
    // Nothing is open, so only the event of the deletion causes a read.
    assert((await reached()) <= after + 2);
  },

  async "without an upload route or a receiver, the page shows only what there is"() {
    const { page, complaints } = await open(url);
    const { config } = await stateOf(page);
    await chooseFlow(page);
    const apply = async (text) => {
      await page.fill("#config", text);
      await page.click("#apply");
      await eventually(() => page.textContent("#verdict"), /^Applied at/);
    };
    await apply(config.text.slice(0, config.text.indexOf("[events]")));
    assert(await page.isVisible("#held"));
    assert(!(await page.isVisible("#events-card")));
    await apply(config.text.slice(0, config.text.indexOf("[[routes]]                ")));
    assert(!(await page.isVisible("#flows")));
    assert(!(await page.isVisible("#held")));
    assert.equal((await outcome(page)).said, "Send a request as user_1.");
    assert.equal(await page.textContent("#route-name"), "/api/imgwire/upload-token");
    await page.click("#restore");
    await page.waitForSelector("#restore", { state: "hidden" });
    await eventually(() => page.textContent("#route-name"), "/imgwire");
    assert(await page.isVisible("#events-card"));
    assert.deepEqual(complaints, []);
  },
});

/** A config of the user's own, whose only route has the workspace in its path, and which sends events elsewhere. */
export const ownUploadChecks = (url, token) => ({
  async "a route with the workspace in its path needs one, and lists its images"() {
    const { page, complaints } = await open(url);
    assert(!(await page.isVisible("#flows")));
    assert(await page.isVisible("#held"));
    assert(!(await page.isVisible("#events-card")));
    assert.equal(await page.textContent("#images-note"), "Choose a workspace: the path of this route names it.");
    await page.fill("#credential-value", token);
    await page.click("#send");
    assert(await page.$eval("#workspace-name", (input) => input === document.activeElement));
    await page.fill("#workspace-name", "ws_1");
    await eventually(() => page.textContent("#images-note"), "No images yet.");
    const answer = await send(page);
    assert.deepEqual([answer.status, answer.said], ["200", "user_1 may upload to ws_1."]);
    await eventually(() => images(page), ["sample.png: ready"]);
    await page.click("#tab-curl");
    assert.match(await page.textContent("#wire"), /\/imgwire\/ws_1\/api\/v1\/images\/standard_upload /);
    assert.deepEqual(await violations(page), []);
    await page.click("#images li button");
    await eventually(() => images(page), []);
    assert.deepEqual(complaints, []);
  },
});
