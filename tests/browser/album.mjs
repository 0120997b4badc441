// Uses the album of an example in a real Chromium: signs in as Ada, uploads through the gate, waits for the image and its
// event, and deletes it. Arguments: the page's URL. Prints what each step got.
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
await page.getByRole("button", { name: "Sign in as Ada" }).click();
const input = page.getByLabel("An image for the album");
await input.waitFor();
const images = page.getByRole("list", { name: "Images" }).getByRole("listitem");
const events = page.getByRole("list", { name: "Events" }).getByRole("listitem");

/** Reloads the page until it lists an event, and prints all. */
async function waitForEvent(type) {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const listed = await events.allTextContents();
    if (listed.includes(type) || Date.now() > deadline) {
      console.log(`events: ${listed}`);
      return;
    }
    await page.reload();
    await input.waitFor();
  }
}

await input.setInputFiles({ name: "text.txt", mimeType: "text/plain", buffer: Buffer.from("text") });
const alert = page.locator("p[role=alert]");
await alert.filter({ hasText: "." }).waitFor();
console.log(`text: ${await alert.textContent()}`);
await input.setInputFiles({ name: "pixel.png", mimeType: "image/png", buffer: picture });
await images.filter({ hasText: "pixel.png: READY" }).waitFor();
console.log(`images: ${await images.count()}`);
await waitForEvent("upload.ready");
await page.getByRole("button", { name: "Delete" }).click();
await images.first().waitFor({ state: "detached" });
await waitForEvent("image.deleted");
const forged = await page.evaluate(() => fetch("/api/events", { method: "POST", body: "{}" }).then(({ status }) => status));
console.log(`forged: ${forged}`);
await browser.close();
