// Each state in light and dark, wide and narrow: nothing is wrong for assistive technology, nothing is wider than the
// window, and a screenshot shows it.
import assert from "node:assert/strict";
import { choose, eventually, open, send, sendAs, setMood, useUpRate, violations } from "./driver.mjs";

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
      await useUpRate(page);
      assert.equal((await send(page)).status, "429");
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
    "fault",
    async (page) => {
      await setMood(page, "up");
      const text = await page.inputValue("#config");
      await page.fill("#config", text.replace("limit = 30", 'limit = "30"').replace('kind = "quota"', 'kind = "qouta"'));
      await page.click("#apply");
      await page.waitForSelector("#faults li");
    },
  ],
];

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
          if (viewport === NARROW && !["first", "fault"].includes(state)) assert(await isInView(page, "#banner"), name);
          // Transitions would give colours in between.
          await page.waitForTimeout(350);
          if (state === PICTURED && viewport === WIDE) await takePicture(page, `${folder}/playground${colorScheme === "dark" ? "-dark" : ""}.png`);
          await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
          assert.deepEqual(await violations(page), [], name);
          assert(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), name);
        }
        assert.deepEqual(complaints, [], `${colorScheme} ${viewport.width}`);
        await context.close();
      }
    }
  },
});
