// What pages do when they are narrow, when a list was filtered, when the session ends under them, and when the collector stops
// answering. Each story has a browser context of its own: refusals are expected here.

import assert from "node:assert/strict";

const PHONE = { width: 390, height: 844 };
const TABLET = { width: 768, height: 1024 };

async function signedIn({ browser, url, login, password, limit }, options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  const page = await context.newPage();
  await page.goto(`${url}/login`);
  await signIn(page, login, password);
  await page.waitForURL(`${url}/`, limit);
  return { context, page };
}

async function signIn(page, login, password) {
  await page.getByLabel("User name").fill(login);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

/** No page scrolls sideways on a phone or a tablet. */
export async function thePagesFit(story) {
  const { url, ticket, limit } = story;
  for (const viewport of [PHONE, TABLET]) {
    const { context, page } = await signedIn(story, { viewport });
    const linked = async (path, selector) => {
      await page.goto(`${url}${path}`);
      return new URL(await page.locator(selector).first().evaluate((a) => a.href)).pathname;
    };
    const host = await linked("/", "tr a.main[href^='/hosts/']");
    const contract = await linked("/contracts", "table a.main");
    const paths = ["/", "/?state=problem", "/tickets", "/tickets?state=all", ticket, host, `${host}?found=all&range=7d`,
      `${host}/rekey`, "/contracts", contract, "/account", "/account/password", "/nothing-here"];
    for (const path of paths.filter(Boolean)) {
      await page.goto(`${url}${path}`);
      await page.waitForFunction(() => !document.querySelector(".plot.loading"), null, limit);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert(wide <= 0, `${path} at ${viewport.width} px scrolls sideways by ${wide} px`);
    }
    await context.close();
  }
}

/** The link above a page leads back to the list as it was filtered, also after an act and in a new tab. */
export async function theListIsFoundAgain(story) {
  const { url, host, ticket, limit } = story;
  const { context, page } = await signedIn(story);
  const back = (page) => page.locator("a.crumb").evaluate((a) => a.href);
  await page.goto(`${url}/tickets?state=all`);
  await page.getByRole("combobox", { name: "State" }).selectOption("");
  await page.waitForURL(`${url}/tickets`, limit);
  await page.getByRole("combobox", { name: "Priority" }).selectOption("P1");
  await page.waitForURL(`${url}/tickets?priority=P1`, limit);
  await page.locator(`a[href="${ticket}"]`).first().click();
  await page.waitForURL(`${url}${ticket}`, limit);
  assert.equal(await back(page), `${url}/tickets?priority=P1`);
  await page.getByRole("textbox", { name: "Note" }).fill("On my way.");
  await page.getByRole("button", { name: "Add note" }).click();
  await page.locator(".note", { hasText: "On my way." }).first().waitFor(limit);
  assert.equal(await back(page), `${url}/tickets?priority=P1`, "it is kept after an act");

  await page.goto(`${url}/?state=up`);
  const [tab] = await Promise.all([
    context.waitForEvent("page"),
    page.getByRole("link", { name: host, exact: true }).last().click({ modifiers: ["ControlOrMeta"] }),
  ]);
  await tab.waitForURL(/\/hosts\//, limit);
  assert.equal(await back(tab), `${url}/?state=up`, "a new tab knows it");
  await context.close();
}

/** What someone types is there after a reload, and after the session was ended in another tab. */
export async function theNoteIsKept(story) {
  const { url, ticket, limit, login, password } = story;
  const text = "Half a thought,\nand a <b>second</b> line.";
  const { context, page } = await signedIn(story);
  await page.goto(`${url}${ticket}`);
  const note = page.getByRole("textbox", { name: "Note" });
  await note.fill(text);
  await page.reload();
  assert.equal(await note.inputValue(), text, "it outlives a reload");

  const other = await context.newPage();
  await other.goto(`${url}/account`);
  await other.getByRole("button", { name: "Sign out" }).first().click();
  await other.waitForURL(`${url}/login`, limit);
  await other.close();
  await page.getByText("You are signed out.").waitFor(limit);
  assert.equal(await note.inputValue(), text, "nobody is taken away from what they write");
  await page.getByRole("button", { name: "Add note" }).click();
  await page.getByText("what you wrote is kept").waitFor(limit);
  await signIn(page, login, password);
  await page.getByRole("heading", { name: "Not sent yet" }).waitFor(limit);
  await page.getByRole("button", { name: "Send again" }).click();
  await page.waitForURL(`${url}${ticket}`, limit);
  await page.locator(".note", { hasText: "Half a thought" }).first().waitFor(limit);
  assert.equal(await page.locator(".note", { hasText: "Half a thought" }).count(), 1);
  assert.equal(await note.inputValue(), "", "what was sent is no draft any more");
  await context.close();
}

/** The collector is held up: an open page says since when it is old, and that a search got no answer. */
export async function theBarTells(story, pid) {
  const { url, limit } = story;
  const { context, page } = await signedIn(story, { viewport: PHONE });
  await page.goto(`${url}/`);
  await page.locator("#live-state[data-state=on]").waitFor(limit);
  const bar = page.locator("#stale");
  assert(await bar.isHidden());
  try {
    process.kill(pid, "SIGSTOP");
    await page.getByText(/^Not connected since \d\d:\d\d\. What you see is old\.$/).waitFor({ timeout: 60_000 });
    await page.getByRole("searchbox").fill("no such host");
    await page.getByText("Could not load. What you see is old.").waitFor({ timeout: 60_000 });
  } finally {
    process.kill(pid, "SIGCONT");
  }
  await bar.waitFor({ state: "hidden", ...limit });
  // The search that got no answer is asked again.
  await page.getByText("No hosts match these filters").waitFor(limit);
  await context.close();
}
