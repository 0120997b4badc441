// Uses one of the examples in a real Chromium: signs in as Ada, chooses a picture, and waits for its status. Arguments: the
// page's URL. Prints what it says before and after the upload.
import { deflateSync } from "node:zlib";
import { chromium } from "playwright-core";

const [url] = process.argv.slice(2);

/** A PNG of one pixel. */
function picture() {
  const crcTable = Array.from({ length: 256 }, (_, n) => {
    for (let bit = 0; bit < 8; bit += 1) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
    return n >>> 0;
  });
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const crc = body.reduce((sum, byte) => crcTable[(sum ^ byte) & 255] ^ (sum >>> 8), 0xffffffff) ^ 0xffffffff;
    const number = (value) => {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32BE(value >>> 0);
      return bytes;
    };
    return Buffer.concat([number(data.length), body, number(crc)]);
  };
  const header = Buffer.from([0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0]);
  const signature = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]);
  const pixel = deflateSync(Buffer.from([0, 255, 0, 0]));
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", pixel), chunk("IEND", Buffer.alloc(0))]);
}

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"],
});
const page = await browser.newPage();
page.setDefaultTimeout(60_000);
await page.goto(url);
const before = await page.evaluate(async () => {
  const response = await fetch("/api/imgwire/upload-token", { method: "POST" });
  const { code } = await response.json();
  return `${response.status} ${code}`;
});
console.log(`before: ${before}`);
await page.getByRole("button", { name: "Sign in as Ada" }).click();
const input = page.getByLabel("A picture");
await input.waitFor();
await input.setInputFiles({ name: "pixel.png", mimeType: "image/png", buffer: picture() });
const output = page.locator("output");
await output.filter({ hasNotText: /^(uploading)?$/ }).waitFor();
console.log(`after: ${await output.textContent()}`);
await browser.close();
