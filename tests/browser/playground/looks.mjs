// Each state in light and dark, wide and narrow: nothing is wrong for assistive technology, nothing is wider than the
// window, and a screenshot shows it.
import assert from "node:assert/strict";
import { choose, eventually, open, outcome, send, sendAboveRate, sendAs, setMood, steps, violations } from "./driver.mjs";
import { chooseFlow, clear, create, images } from "./uploads.mjs";

const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 390, height: 844 };

/** How to reach each state from the one before. */
const STATES = [
  ["first", (page) => setMood(page, "up")],
  [
    "allowed",
    async (page) => {
      await sendAs(page, "owner");
      await page.waitForSelector("#picture.ready");
    },
  ],
  ["401", (page) => sendAs(page, "expired")],
  ["403", (page) => sendAs(page, "viewer")],
  [
    "429",
    async (page) => {
      await choose(page, "user", "owner");
      assert.equal((await sendAboveRate(page)).status, "429");
    },
  ],
  [
    "500",
    async (page) => {
      await setMood(page, "down");
      await eventually(() => page.textContent("[data-policy=burst] .left"), /^[1-9]/);
      assert.equal((await send(page)).status, "500");
      await page.click("#tab-log");
    },
  ],
  [
    "uploads",
    async (page) => {
      await setMood(page, "up");
      await chooseFlow(page);
      await clear(page);
      assert.equal((await create(page)).status, "200");
      await eventually(() => images(page), ["sample.png: ready"]);
      assert.equal((await create(page, "nothing")).status, "200");
      await eventually(async () => (await images(page)).length, 2);
      await eventually(() => page.textContent("#events li:first-child b"), "upload.ready", { within: 12_000 });
      await page.click("#events li:first-child summary");
    },
  ],
  [
    "full",
    async (page) => {
      await create(page, "nothing");
      await create(page, "nothing");
      assert.equal((await create(page, "file")).code, "storage_full");
    },
  ],
  [
    "fault",
    async (page) => {
      await clear(page);
      await choose(page, "flow", "token");
      const text = await page.inputValue("#config");
      await page.fill("#config", text.replace("limit = 30", 'limit = "30"').replace('kind = "quota"', 'kind = "qouta"'));
      await page.click("#apply");
      await page.waitForSelector("#faults li");
    },
  ],
  [
    "many",
    async (page) => {
      await page.click("#discard");
      await page.fill("#config", withManyPolicies(await page.inputValue("#config")));
      await page.click("#apply");
      await eventually(async () => (await steps(page)).length, 13);
      assert.equal((await sendAs(page, "owner")).code, "rule_forbidden");
      assert.deepEqual((await steps(page)).slice(-3), [`${LONG} no!`, "last off", "Imgwire off"]);
      // The page shows HTML of the config as text.
      assert.equal(await page.$("#chain b b, #banner b b, #purpose b, main img[src=x]"), null);
      assert.match((await outcome(page)).details, /The user reads: “<img src=x>”/);
      await page.click("#to-policy");
      assert.equal(await page.$eval("#config", (area) => area.value.slice(area.selectionStart, area.selectionEnd)), `[policies.'${LONG}']`);
    },
  ],
];

/** A name with dots, which TOML needs quoted. */
const LONG = "only.a-name-that-is-much-longer-than-the-others_and-has-no-space-in-its-second-half.";

const purposes = ["<b>avatar</b>", "cover", "gallery-of-the-workspace", "attachment", "a-purpose-that-does-not-fit-beside-others"];

/** The config with twelve policies, some with long names, and with HTML in texts. */
function withManyPolicies(text) {
  const table = (name, lines) => `\n[policies.${name}]\n${lines}\n`;
  const rule = (allow) => `kind = "expression"\nallow = "${allow}"`;
  const allowing = ["paying-customers", "from-a-country-where-the-service-is-offered", "working-hours", "sixth", "seventh", "eighth", "ninth"];
  const added = [
    table("purposes", `kind = "upload_intent"\npurposes = ${JSON.stringify(purposes)}\nmode = "observe"`),
    ...allowing.map((name) => table(name, rule("true"))),
    table(`'${LONG}'`, `${rule("false")}\nmessage = { en = "<img src=x>" }`),
    table("last", rule("true")),
  ];
  const names = ["signed-in", "member", "purposes", ...allowing];
  const chain = [...names.map((name) => `"${name}"`), `'${LONG}'`, '"last"'];
  return text.replace(/^policies = \[.*\]$/m, `policies = [${chain.join(", ")}]`).replace("\n[[routes]]", `${added.join("")}\n[[routes]]`);
}

/** The state on the picture of the README and the docs. */
const PICTURED = "429";

/** The form, the chain, the limits and the exchange, down to the button. */
async function takePicture(page, path) {
  const height = await page.$eval("#send", (element) => element.getBoundingClientRect().bottom + scrollY + 16);
  await page.screenshot({ path, fullPage: true, clip: { x: 0, y: 0, width: WIDE.width, height } });
}

/** Whether an element is within the window. */
const isInView = (page, selector) =>
  page.$eval(selector, (element) => {
    const { top, bottom } = element.getBoundingClientRect();
    return top >= 0 && bottom <= innerHeight;
  });

export const lookChecks = (url, folder) => ({
  async "every state is right for assistive technology, in light and dark, wide and narrow"() {
    for (const colorScheme of ["light", "dark"]) {
      for (const viewport of [WIDE, NARROW]) {
        const { page, complaints, context } = await open(url, { colorScheme, viewport });
        for (const [state, reach] of STATES) {
          const name = `${state}-${viewport.width}-${colorScheme}`;
          await reach(page);
          // The answer is in view after the button.
          if (viewport === NARROW && !["first", "uploads", "fault", "many"].includes(state)) assert(await isInView(page, "#banner"), name);
          // Transitions would give colours in between.
          await page.waitForTimeout(350);
          if (state === PICTURED && viewport === WIDE) await takePicture(page, `${folder}/playground${colorScheme === "dark" ? "-dark" : ""}.png`);
          await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
          assert.deepEqual(await violations(page), [], name);
          assert(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), name);
        }
        await page.click("#restore");
        await page.waitForSelector("#restore", { state: "hidden" });
        assert.deepEqual(complaints, [], `${colorScheme} ${viewport.width}`);
        await context.close();
      }
    }
  },
});
