// Signs in to an app in a real Chromium and asks the gate for tokens. Arguments: the app's origin. Prints what each step
// got.
import { chromium } from "playwright-core";

const [origin] = process.argv.slice(2);

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"],
});
// The certificate is the proxy's own.
const context = await browser.newContext({ ignoreHTTPSErrors: true });
const page = await context.newPage();

/** The status and the code of the gate's answer. */
function ask() {
  return page.evaluate(async () => {
    const response = await fetch("/api/imgwire/upload-token", { method: "POST" });
    const { code = "" } = await response.json();
    return `${response.status} ${code}`.trim();
  });
}

await page.goto(`${origin}/api/auth/signin`);
console.log(`before: ${await ask()}`);
await page.fill("input[name=name]", "ada");
await Promise.all([page.waitForNavigation(), page.click("button[type=submit]")]);
await page.goto(`${origin}/api/auth/session`);
console.log(`signed in: ${await ask()}`);
const cookies = await context.cookies(origin);
const session = cookies.filter(({ name }) => name.includes("session-token"));
console.log(`cookies: ${session.map(({ name, secure }) => `${name} ${secure ? "secure" : "open"}`)}`);
await context.clearCookies();
console.log(`after: ${await ask()}`);
await browser.close();
