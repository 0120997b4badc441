// Drives a real Chromium through the sandbox's page. Arguments: the page's URL; the page's URL, the config file, a JWT
// and a JWT with long claims of a sandbox with a config of the user's own; the page's URL of one whose only route is for
// uploads; and a folder for screenshots.
import { argv } from "node:process";
import { close } from "./playground/driver.mjs";
import { configChecks } from "./playground/config.mjs";
import { demoChecks } from "./playground/demo.mjs";
import { lookChecks } from "./playground/looks.mjs";
import { ownChecks } from "./playground/own.mjs";
import { sessionChecks } from "./playground/session.mjs";
import { ownUploadChecks, uploadChecks } from "./playground/uploads.mjs";

const [url, ownUrl, ownFile, ownToken, longToken, ownUploadsUrl, folder] = argv.slice(2);
// A part of a name runs only the checks that have it.
const wanted = process.env.ONLY ?? "";

let failed = 0;
for (const [name, check] of Object.entries({
  ...demoChecks(url),
  ...configChecks(url),
  ...sessionChecks(url),
  ...uploadChecks(url),
  ...ownChecks(ownUrl, ownFile, ownToken, longToken),
  ...ownUploadChecks(ownUploadsUrl, ownToken),
  ...lookChecks(url, folder),
})) {
  if (!name.includes(wanted)) continue;
  const began = Date.now();
  try {
    await check();
    console.log(`ok: ${name} (${Date.now() - began} ms)`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED: ${name}\n${error.stack}`);
  }
}
await close();
process.exit(failed === 0 ? 0 : 1);
