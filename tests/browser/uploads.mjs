// Uploads through the gate from a page on another port, in a real Chromium, with the calls of the published SDK.
// Arguments: the port of the page, the URL of the upload route, and the JWTs of a member and of a stranger.
import { createServer } from "node:http";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [port, baseUrl, member, stranger] = process.argv.slice(2);

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const app = createServer((_, response) => response.setHeader("Content-Type", "text/html").end("<p>app"));
await new Promise((resolve) => app.listen(Number(port), "127.0.0.1", resolve));

/** Defines the client in the page: the calls of the SDK, each with the user's own credential as the API key. */
function defineClient() {
  class Images {
    constructor({ baseUrl, apiKey }) {
      Object.assign(this, { baseUrl, apiKey });
    }

    async call(path, options = {}) {
      const headers = { Authorization: `Bearer ${this.apiKey}`, "Content-Type": "application/json" };
      const response = await fetch(`${this.baseUrl}/api/v1/images/${path}`, { ...options, headers });
      if (!response.ok) {
        const error = new Error(`${path}: ${response.status} ${await response.text()}`);
        throw Object.assign(error, { status: response.status });
      }
      return response;
    }

    async create(file, { fileName = "picture.png", purpose, customMetadata, idempotencyKey } = {}) {
      const response = await this.call("standard_upload", {
        method: "POST",
        body: JSON.stringify({
          file_name: fileName,
          mime_type: file.type,
          content_length: file.size,
          purpose,
          custom_metadata: customMetadata,
          idempotency_key: idempotencyKey,
        }),
      });
      return response.json();
    }

    async upload(file, options = {}) {
      const { image, upload_url: url } = await this.create(file, options);
      await new Promise((resolve, reject) => {
        const request = new XMLHttpRequest();
        request.open("PUT", url);
        request.setRequestHeader("Content-Type", file.type);
        request.upload.addEventListener("progress", (event) => options.onProgress?.(event.loaded, event.total));
        request.addEventListener("load", () => (request.status === 200 ? resolve() : reject(new Error(`PUT: ${request.status}`))));
        request.addEventListener("error", () => reject(new Error("PUT failed")));
        request.send(file);
      });
      return image;
    }

    async fetch(id) {
      return (await this.call(id)).json();
    }

    async settled(id) {
      for (;;) {
        const image = await this.fetch(id);
        if (!["PENDING", "PROCESSING"].includes(image.status)) return image;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }

    async list(query = "") {
      const response = await this.call(query);
      const number = (name) => Number(response.headers.get(name));
      return { images: await response.json(), total: number("X-Total-Count"), page: number("X-Page"), limit: number("X-Limit") };
    }

    async delete(id) {
      return (await this.call(id, { method: "DELETE" })).status;
    }

    async statusOf(id) {
      return this.fetch(id).then(() => 200, (error) => error.status);
    }
  }

  window.client = (baseUrl, apiKey) => new Images({ baseUrl, apiKey });
  window.picture = async (size = 0) => {
    const canvas = document.createElement("canvas");
    const png = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    const padding = new Uint8Array(Math.max(0, size - png.size));
    return new Blob([png, padding], { type: "image/png" });
  };
}

const checks = {
  "an upload reports progress, and keeps purpose and metadata": async (page) => {
    const { loaded, size, image } = await page.evaluate(async ({ baseUrl, member }) => {
      const images = window.client(baseUrl, member);
      const file = await window.picture();
      let loaded = 0;
      const created = await images.upload(file, {
        purpose: "avatar",
        customMetadata: { alt: "A face", workspace: "ws_2", secret: 1 },
        onProgress: (bytes) => (loaded = bytes),
      });
      return { loaded, size: file.size, image: await images.settled(created.id) };
    }, { baseUrl, member });
    assert.equal(loaded, size);
    assert.deepEqual([image.status, image.size_bytes, image.mime_type, image.width], ["READY", size, "image/png", 300]);
    assert.equal(image.purpose, "avatar");
    assert.deepEqual(image.custom_metadata, { alt: "A face", workspace: "ws_1" });
    assert.equal(image.upload_token_id, null);
  },

  "twenty uploads run in parallel": async (page) => {
    const images = await page.evaluate(async ({ baseUrl, member }) => {
      const client = window.client(baseUrl, member);
      const file = await window.picture();
      const uploads = Array.from({ length: 20 }, (_, index) => client.upload(file, { fileName: `${index}.png`, purpose: "avatar" }));
      const created = await Promise.all(uploads);
      return Promise.all(created.map(({ id }) => client.settled(id)));
    }, { baseUrl, member });
    assert.equal(new Set(images.map(({ id }) => id)).size, 20);
    assert.ok(images.every(({ status }) => status === "READY"));
  },

  "eight MiB arrive": async (page) => {
    const image = await page.evaluate(async ({ baseUrl, member }) => {
      const client = window.client(baseUrl, member);
      const created = await client.upload(await window.picture(8 << 20), { purpose: "avatar" });
      return client.settled(created.id);
    }, { baseUrl, member });
    assert.deepEqual([image.status, image.size_bytes], ["READY", 8 << 20]);
  },

  "a repeated idempotency key yields the same image": async (page) => {
    const ids = await page.evaluate(async ({ baseUrl, member }) => {
      const client = window.client(baseUrl, member);
      const file = await window.picture();
      const create = async () => (await client.create(file, { purpose: "avatar", idempotencyKey: "form-7" })).image.id;
      return [await create(), await create()];
    }, { baseUrl, member });
    assert.equal(ids[0], ids[1]);
  },

  "images are read, listed and deleted": async (page) => {
    const { id, listed, read, foreign, deleted, after } = await page.evaluate(async ({ baseUrl, member, stranger }) => {
      const client = window.client(baseUrl, member);
      const { id } = await client.upload(await window.picture(), { purpose: "avatar" });
      await client.settled(id);
      const listed = await client.list("?page=1&limit=5");
      const read = await client.fetch(id);
      const foreign = await window.client(baseUrl, stranger).statusOf(id);
      const deleted = await client.delete(id);
      return { id, listed, read, foreign, deleted, after: await client.statusOf(id) };
    }, { baseUrl, member, stranger });
    assert.equal(listed.images[0].id, id);
    assert.deepEqual([listed.images.length, listed.page, listed.limit], [5, 1, 5]);
    assert.ok(listed.total >= 23, `${listed.total}`);
    assert.equal(read.id, id);
    assert.deepEqual([foreign, deleted, after], [404, 204, 404]);
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  const context = await browser.newContext();
  const page = await context.newPage();
  try {
    await page.goto(`http://127.0.0.1:${port}/`);
    await page.evaluate(defineClient);
    await check(page);
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
