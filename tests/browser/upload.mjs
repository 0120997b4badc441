// Uploads from a page on another port than the gate's, in a real Chromium, with the steps of the published SDK.
// Arguments: the gate's URL, Imgwire's URL, a Client Key, and a JWT of the app.
import { createServer } from "node:http";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [gate, imgwire, apiKey, jwt] = process.argv.slice(2);

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const app = createServer((_, response) => response.setHeader("Content-Type", "text/html").end("<p>app"));
await new Promise((resolve) => app.listen(0, "127.0.0.1", resolve));

/** Runs in the page. */
async function uploadFromPage({ gate, imgwire, apiKey, jwt, signIn }) {
  if (signIn) {
    const headers = { Authorization: `Bearer ${jwt}` };
    await fetch(`${gate}/api/imgwire/session`, { method: "POST", headers, credentials: "include" });
  }
  const headers = signIn ? {} : { Authorization: `Bearer ${jwt}` };

  // The published snippet.
  const getUploadToken = async () => {
    const response = await fetch(`${gate}/api/imgwire/upload-token`, { method: "POST", headers, credentials: "include" });
    if (!response.ok) throw new Error(`no token: ${response.status}`);
    const { uploadToken } = await response.json();
    return uploadToken;
  };

  // What the SDK does with it.
  const call = async (path, options = {}) => {
    const authorization = { Authorization: `Bearer ${apiKey}`, "Content-Type": "application/json" };
    const response = await fetch(`${imgwire}/api/v1/images/${path}`, { ...options, headers: authorization });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response.json();
  };
  const canvas = document.createElement("canvas");
  const file = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  const { image, upload_url: url } = await call(`standard_upload?upload_token=${await getUploadToken()}`, {
    method: "POST",
    body: JSON.stringify({ file_name: "canvas.png", mime_type: file.type, content_length: file.size }),
  });
  let progress = 0;
  await new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", url);
    request.setRequestHeader("Content-Type", file.type);
    request.upload.addEventListener("progress", (event) => (progress = event.loaded));
    request.addEventListener("load", () => (request.status === 200 ? resolve() : reject(new Error(`PUT: ${request.status}`))));
    request.addEventListener("error", () => reject(new Error("PUT failed")));
    request.send(file);
  });
  let fetched = image;
  while (["PENDING", "PROCESSING"].includes(fetched.status)) {
    fetched = await call(image.id);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { size: file.size, progress, image: fetched };
}

let failed = 0;
for (const [name, host, signIn] of [
  ["a page on another port uploads with a session cookie", "127.0.0.1", true],
  ["a page on another port uploads with a JWT", "127.0.0.1", false],
  ["a page on localhost uploads with a JWT", "localhost", false],
]) {
  const context = await browser.newContext();
  const page = await context.newPage();
  try {
    await page.goto(`http://${host}:${app.address().port}/`);
    const { size, progress, image } = await page.evaluate(uploadFromPage, { gate, imgwire, apiKey, jwt, signIn });
    assert.equal(image.status, "READY");
    assert.deepEqual([image.size_bytes, image.mime_type, image.width], [size, "image/png", 300]);
    assert.equal(progress, size);
    assert.notEqual(image.upload_token_id, null);
    console.log(`ok: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED: ${name}\n${error.stack}`);
  }
  await context.close();
}
app.close();
await browser.close();
process.exit(failed === 0 ? 0 : 1);
