// Uses one of the examples in a real Chromium: signs in as Ada, chooses a picture, and waits for its status. Arguments: the
// page's URL. Prints what it says before and after the upload.
import { chromium } from "playwright-core";

const [url] = process.argv.slice(2);

// A PNG of one pixel.
const picture = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC",
  "base64",
);
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
await input.setInputFiles({ name: "pixel.png", mimeType: "image/png", buffer: picture });
const output = page.locator("output");
await output.filter({ hasNotText: /^(uploading)?$/ }).waitFor();
console.log(`after: ${await output.textContent()}`);
await browser.close();
