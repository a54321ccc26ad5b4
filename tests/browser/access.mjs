// Whether people who see little, use the keyboard or a screen reader can use the pages: the rules of axe-core (WCAG 2.2 AA
// and its good practice) on every page, on a desktop and a phone, light and dark.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathsOf, signedIn } from "./visits.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
// In production browsers this one is off by default; it finds names that differ from what is seen.
const MORE = { "label-content-name-mismatch": { enabled: true } };
const VIEWS = [
  { viewport: { width: 1440, height: 900 }, colorScheme: "light" },
  { viewport: { width: 390, height: 844 }, colorScheme: "dark" },
];

/** Every page keeps the rules of axe-core. Returns how many pages were looked at. */
export async function thePagesAreAccessible(story) {
  const { url, limit } = story;
  const faults = [];
  let checked = 0;
  for (const view of VIEWS) {
    const { context, page } = await signedIn(story, view);
    const visit = async (path, on = page) => {
      await on.goto(`${url}${path}`);
      await on.waitForFunction(() => !document.querySelector(".plot.loading"), null, limit);
      checked += 1;
      faults.push(...(await faultsOf(on)).map((fault) => `${path} (${view.viewport.width} px, ${view.colorScheme}): ${fault}`));
    };
    for (const path of await pathsOf(story, page)) await visit(path);
    await context.close();
    // Whoever is not signed in sees this one.
    const stranger = await story.browser.newContext({ ignoreHTTPSErrors: true, ...view });
    await visit("/login", await stranger.newPage());
    await stranger.close();
  }
  assert.deepEqual(faults, [], "rules of axe-core are broken");
  return checked;
}

async function faultsOf(page) {
  await page.evaluate(AXE);
  const found = await page.evaluate(
    ([tags, rules]) => globalThis.axe.run(document, { runOnly: { type: "tag", values: tags }, rules, resultTypes: ["violations"] }),
    [RULES, MORE],
  );
  return found.violations.flatMap(({ id, help, nodes }) =>
    nodes.map((node) => `${id}: ${help}: ${node.target.join(" ")}: ${node.html.slice(0, 160)}`));
}
