// The web pages' story in a real browser, against a running collector that watches this machine:
// sign in, see the machine up, zoom a chart, watch a ticket appear without a reload, acknowledge
// it; no error and no policy violation in the console; screenshots of every page.
//
// Environment:
//   STORY_URL                 where the collector's pages are, as in https://localhost:8443
//   STORY_LOGIN               the login, default "admin"
//   STORY_PASSWORD            its password, may be the one-time one
//   STORY_NEW_PASSWORD        what to set if the password is a one-time one
//   STORY_HOST                the name of the host to look at, default this machine's
//   STORY_BREACH_COMMAND      a shell command that causes a breach; or
//   STORY_BREACH_PID          a watched process to end, default if neither is set: no ticket story
//   STORY_WATCH               the key of something that the agent proposes, as in tcp:127.0.0.1:7443; without it: no story of that
//   STORY_COLLECTOR_PID       the collector, to hold it up; without it: no story of that
//   STORY_SHOTS               a directory for screenshots, optional
//   STORY_CHROMIUM            the browser, default /usr/bin/chromium
// Ends with 0 if all holds, else with 1 and what did not; its last line counts.

import assert from "node:assert/strict";
import { execSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { hostname } from "node:os";
import { chromium } from "playwright-core";
import { theBarTells, theListIsFoundAgain, theNoteIsKept, thePagesFit } from "./breaks.mjs";

const { env } = process;
const url = env.STORY_URL?.replace(/\/$/, "");
assert(url && env.STORY_PASSWORD, "set STORY_URL and STORY_PASSWORD");
const login = env.STORY_LOGIN ?? "admin";
const host = env.STORY_HOST ?? hostname();
const shots = env.STORY_SHOTS;
const LIMIT = { timeout: 30_000 };
const DESKTOP = { width: 1440, height: 900 };
const PHONE = { width: 390, height: 844 };
let passed = 0;
const say = (text) => {
  passed += 1;
  console.log(`- ${text}`);
};

const browser = await chromium.launch({
  executablePath: env.STORY_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const troubles = [];
const watch = (context) => {
  context.on("weberror", (error) => troubles.push(`exception: ${error.error().stack}`));
  context.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) {
      troubles.push(`console ${message.type()}: ${message.text()} at ${message.location().url}`);
    }
  });
  context.on("response", (response) => {
    if (response.status() >= 400) troubles.push(`${response.status()} ${response.url()}`);
  });
  return context;
};

try {
  const context = watch(await browser.newContext({ ignoreHTTPSErrors: true, viewport: DESKTOP, colorScheme: "light" }));
  const page = await context.newPage();
  await signIn(page);
  await fleetShowsThisMachineUp(page);
  await aChartZooms(page);
  await themeSwitches(page);
  if (env.STORY_WATCH) await aProposalIsWatched(page, env.STORY_WATCH);
  const ticket = await aTicketAppears(page);
  if (ticket) await itIsAcknowledged(page, ticket);
  await theContractHasItsCalendar(page);
  const password = env.STORY_NEW_PASSWORD ?? env.STORY_PASSWORD;
  const story = { browser, url, login, password, host, ticket, limit: LIMIT, until };
  await thePagesFit(story);
  say("no page scrolls sideways at 390 and 768");
  if (ticket) {
    await theListIsFoundAgain(story);
    say("the link back to a list keeps its filters");
    await theNoteIsKept(story);
    say("a note outlives a reload and the end of the session");
  }
  if (shots) await takeShots(await context.storageState(), ticket);
  if (ticket) await itIsResolved(page, ticket);
  await strangersStayOut();
  if (env.STORY_COLLECTOR_PID) {
    await theBarTells(story, Number(env.STORY_COLLECTOR_PID));
    say("a bar says that a page is no longer live");
  }
  assert.deepEqual(troubles, [], "the console or the network had trouble");
  say("neither console nor network had trouble");
} catch (error) {
  console.error(error);
  if (troubles.length) console.error("Also seen:", troubles);
  process.exitCode = 1;
} finally {
  await browser.close();
  console.log(`${passed} passed, ${process.exitCode ? 1 : 0} failed`);
}

async function signIn(page) {
  await page.goto(`${url}/tickets?state=all`);
  await page.waitForURL(/\/login\?next=/, LIMIT);
  if (shots) await shot(page, "login-desktop-light");
  await page.getByLabel("User name").fill(login);
  await page.getByLabel("Password").fill(env.STORY_PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL((to) => !to.pathname.startsWith("/login"), LIMIT);
  if (new URL(page.url()).pathname === "/account/password") {
    assert(env.STORY_NEW_PASSWORD, "the password is a one-time one: set STORY_NEW_PASSWORD");
    if (shots) await shot(page, "password-desktop-light");
    await page.goto(`${url}/tickets`);
    await page.waitForURL(/\/account\/password\?next=/, LIMIT);
    await page.getByLabel("One-time password").fill(env.STORY_PASSWORD);
    await page.getByLabel("New password", { exact: true }).fill(env.STORY_NEW_PASSWORD);
    await page.getByLabel("New password again").fill(env.STORY_NEW_PASSWORD);
    await page.getByRole("button", { name: "Save password" }).click();
    await page.waitForURL(`${url}/tickets`, LIMIT);
    say("a one-time password had to be replaced first, then the page that was asked for came");
  } else {
    assert.match(page.url(), /\/tickets\?state=all$/, "the sign-in leads to the page that was asked for");
  }
  const cookies = await page.context().cookies();
  const session = cookies.find((cookie) => cookie.name === "__Host-watchkeep");
  assert(session?.httpOnly && session.secure && session.sameSite === "Lax", "the session's cookie is guarded");
  say("signed in");
}

async function fleetShowsThisMachineUp(page) {
  await page.goto(`${url}/`);
  const row = page.locator("table tbody tr", { has: page.getByRole("link", { name: host, exact: true }) });
  await row.locator(".pill", { hasText: /^Up/ }).waitFor(LIMIT);
  await page.locator("#live-state[data-state=on]").waitFor(LIMIT);
  // Live: the values move by themselves, in the same document.
  await page.evaluate(() => { window.sameDocument = true; });
  const before = await row.innerText();
  const moved = async () => (await row.innerText()) !== before;
  await until(moved, "the row's values move");
  assert(await page.evaluate(() => window.sameDocument), "the page did not reload");
  assert.equal(await page.locator("header.top").count(), 1, "only the block was swapped");
  assert.match(await row.locator("td[data-label=CPU]").innerText(), /\d %/);
  assert.match(await row.locator("td[data-label='Fullest disk']").innerText(), /\d %/);
  // Searching swaps the table only.
  await page.getByLabel(/^Search hosts/).fill("no such host");
  await page.getByText("No hosts match these filters").waitFor(LIMIT);
  await page.getByLabel(/^Search hosts/).fill("");
  await row.waitFor(LIMIT);
  assert(await page.evaluate(() => window.sameDocument), "searching does not reload");
  say("this machine is up, its values move");
}

async function aChartZooms(page) {
  await page.goto(`${url}/`);
  await page.getByRole("link", { name: host, exact: true }).last().click();
  const figure = page.locator("figure[data-chart]", { hasText: "CPU" }).first();
  await figure.locator("canvas").waitFor(LIMIT);
  const range = () => figure.evaluate((el) => Number(el.dataset.to) - Number(el.dataset.from));
  const whole = await range();
  assert.equal(whole, 3_600_000);
  await drag(page, figure.locator(".u-over"), 0.6, 0.9);
  await page.waitForFunction(() => {
    const { from, to } = document.querySelector("figure[data-chart]").dataset;
    return to - from < 0.35 * 3_600_000;
  }, null, LIMIT);
  const zoomed = await range();
  assert(zoomed > 0.25 * whole && zoomed < 0.35 * whole, `zoomed to ${zoomed} ms`);
  await page.waitForFunction(() => {
    const ranges = [...document.querySelectorAll("figure[data-chart]")].map((el) => el.dataset.to - el.dataset.from);
    return ranges.length > 3 && ranges.every((range) => range === ranges[0]);
  }, null, LIMIT);
  if (shots) await shot(page, "host-zoomed-desktop-light");
  await page.getByRole("button", { name: "Reset zoom" }).click();
  await page.waitForFunction(() => {
    const { from, to } = document.querySelector("figure[data-chart]").dataset;
    return to - from === 3_600_000;
  }, null, LIMIT);
  await page.getByRole("link", { name: "6h" }).click();
  await page.waitForFunction(() => {
    const { from, to } = document.querySelector("figure[data-chart]").dataset;
    return to - from === 6 * 3_600_000;
  }, null, LIMIT);
  assert.match(page.url(), /range=6h/);
  await figure.getByText("Numbers").click();
  await figure.locator("details table tr").nth(1).waitFor(LIMIT);
  say("a chart zooms, all charts with it, and back");
}

/** Drags across an element. The page above it is live: if that moved it meanwhile, once more. */
async function drag(page, element, from, to) {
  for (let tries = 0; tries < 5; tries += 1) {
    await element.scrollIntoViewIfNeeded();
    const before = await element.boundingBox();
    const y = before.y + before.height / 2;
    await page.mouse.move(before.x + before.width * from, y);
    await page.mouse.down();
    await page.mouse.move(before.x + before.width * (from + to) / 2, y, { steps: 6 });
    await page.mouse.move(before.x + before.width * to, y, { steps: 6 });
    const after = await element.boundingBox();
    await page.mouse.up();
    if (after?.y === before.y) return;
  }
  assert.fail("the chart never stood still");
}

async function themeSwitches(page) {
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.getByRole("button", { name: "Switch between light and dark" }).click();
  const dark = await ground();
  assert.notEqual(light, dark);
  await page.reload();
  assert.equal(await ground(), dark, "the choice outlives a reload");
  await page.getByRole("button", { name: "Switch between light and dark" }).click();
  assert.equal(await ground(), light);
  say("light and dark");
}

async function aProposalIsWatched(page, key) {
  await page.goto(`${url}/`);
  await page.getByRole("link", { name: host, exact: true }).last().click();
  await page.locator("#live-state[data-state=on]").waitFor(LIMIT);
  await page.goto(`${new URL(page.url()).origin}${new URL(page.url()).pathname}?found=all`);
  const proposal = page.locator(`tr[data-proposal="${key}"]`);
  const row = page.locator(`tr[data-service="${key}"]`);
  // Agents look for what could be watched soon after their start.
  await proposal.waitFor({ timeout: 60_000 });
  if (shots) await shot(page, "host-proposals-desktop-light");
  await proposal.getByRole("button", { name: /^Watch / }).click();
  await page.waitForURL(/#services$/, LIMIT);
  await page.evaluate(() => { window.sameDocument = true; });
  await row.locator(".pill", { hasText: /^(Pending|Running|Answers|Valid)$/ }).waitFor(LIMIT);
  assert.match(await row.innerText(), /this host/);
  await row.locator(".pill", { hasText: /^(Running|Answers|Valid)$/ }).waitFor(LIMIT);
  assert.equal(await proposal.count(), 0, "it is no proposal any more");
  assert(await page.evaluate(() => window.sameDocument), "the page did not reload");
  if (shots) await shot(page, "host-watched-desktop-light");
  say("what the agent found is watched with one click");
  await row.getByRole("button", { name: /^Stop watching/ }).click();
  await proposal.waitFor(LIMIT);
  await until(async () => (await row.count()) === 0, "it is watched no more");
  say("and no more with another");
}

async function aTicketAppears(page) {
  const command = env.STORY_BREACH_COMMAND ??
    (env.STORY_BREACH_PID && `kill -9 ${Number(env.STORY_BREACH_PID)}`);
  if (!command) {
    console.log("- no breach to cause: the ticket story is left out");
    return null;
  }
  await page.goto(`${url}/`);
  await page.locator("#live-state[data-state=on]").waitFor(LIMIT);
  await page.evaluate(() => { window.sameDocument = true; });
  const began = Date.now();
  execSync(command, { stdio: "inherit" });
  const toast = page.locator(".toast").first();
  await toast.waitFor({ timeout: 60_000 });
  const seconds = ((Date.now() - began) / 1000).toFixed(1);
  assert(await page.evaluate(() => window.sameDocument), "the page did not reload");
  const ticket = await toast.locator("a").getAttribute("href");
  await page.locator(`.troubles a[href="${ticket}"]`).first().waitFor(LIMIT);
  if (shots) await shot(page, "fleet-toast-desktop-light");
  assert.equal(await page.locator("header.top").count(), 1, "only the block was swapped");
  assert.notEqual(await page.locator("[data-open-tickets]").innerText(), "");
  say(`a ticket appeared ${seconds} s after the breach, without a reload`);
  return ticket;
}

async function itIsAcknowledged(page, ticket) {
  await page.goto(`${url}${ticket}`);
  await page.locator(".pill", { hasText: "New" }).waitFor(LIMIT);
  if (shots) await shot(page, "ticket-new-desktop-light");
  await page.getByRole("button", { name: "Acknowledge" }).click();
  await page.locator(".pill", { hasText: "Open" }).waitFor(LIMIT);
  assert.equal(await page.getByRole("button", { name: "Acknowledge" }).count(), 0);
  await page.getByText("acknowledged; paging stopped").first().waitFor(LIMIT);
  await page.getByRole("textbox", { name: "Note" }).fill("Seen. <b>Looking</b> at it & asking the customer.");
  await page.getByRole("button", { name: "Add note" }).click();
  await page.locator(".note", { hasText: "<b>Looking</b>" }).first().waitFor(LIMIT);
  await page.getByRole("combobox", { name: "Priority" }).selectOption("P1");
  await page.getByRole("button", { name: "Change" }).click();
  await page.locator("h1 ~ .row .prio", { hasText: "P1" }).waitFor(LIMIT);
  say("it was acknowledged, noted on, re-prioritised");
}

async function itIsResolved(page, ticket) {
  await page.goto(`${url}${ticket}`);
  await page.getByRole("button", { name: /resolve/i }).click();
  await page.locator("h1 ~ .row .pill", { hasText: "Resolved" }).waitFor(LIMIT);
  await page.getByRole("button", { name: "Reopen" }).waitFor(LIMIT);
  say("it was resolved");
}

async function theContractHasItsCalendar(page) {
  await page.goto(`${url}/contracts`);
  await page.locator("table a.main").first().click();
  await page.getByRole("heading", { name: "Uptime calendar" }).waitFor(LIMIT);
  const days = await page.locator(".calendar [role=listitem]").count();
  assert(days >= 28 && days <= 31, `${days} days`);
  const month = new URL(await page.getByRole("link", { name: "CSV" }).evaluate((a) => a.href));
  const csv = await page.request.get(month.href);
  assert.equal(csv.status(), 200);
  assert.match(csv.headers()["content-type"], /text\/csv/);
  say("the contract has its calendar and its files");
}

async function strangersStayOut() {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const answer = await context.request.get(`${url}/api/v1/fleet`);
  assert.equal(answer.status(), 401);
  assert.match(answer.headers()["content-type"], /problem\+json/);
  assert.match(answer.headers()["content-security-policy"], /default-src 'none'/);
  const forged = await context.request.post(`${url}/login`, {
    form: { login, password: "x" }, headers: { origin: "https://evil.example" },
  });
  assert.equal(forged.status(), 403);
  await context.close();
  say("strangers and forged forms are refused");
}

/** Waits for what the page does by itself. */
async function until(holds, what) {
  const limit = Date.now() + LIMIT.timeout;
  while (!(await holds())) {
    assert(Date.now() < limit, `${what}: not within ${LIMIT.timeout / 1000} s`);
    await new Promise((wake) => setTimeout(wake, 100));
  }
}

async function shot(page, name) {
  mkdirSync(shots, { recursive: true });
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
}

async function takeShots(storageState, ticket) {
  const linked = async (page, path, link) => {
    await page.goto(`${url}${path}`);
    return new URL(await link(page).evaluate((a) => a.href)).pathname;
  };
  const toHost = (page) => page.getByRole("link", { name: host, exact: true }).last();
  const toFirst = (page) => page.locator("table a.main").first();
  for (const [size, viewport] of [["desktop", DESKTOP], ["phone", PHONE]]) {
    for (const colorScheme of ["light", "dark"]) {
      const context = watch(await browser.newContext({ ignoreHTTPSErrors: true, storageState, viewport, colorScheme, deviceScaleFactor: size === "phone" ? 2 : 1 }));
      await context.clearCookies({ name: "watchkeep-theme" });
      const page = await context.newPage();
      const pages = {
        fleet: "/", host: await linked(page, "/", toHost), tickets: "/tickets?state=all", ticket,
        contracts: "/contracts", contract: await linked(page, "/contracts", toFirst), account: "/account",
      };
      for (const [name, path] of Object.entries(pages)) {
        if (!path) continue;
        await page.goto(`${url}${path}`);
        await page.locator("#live-state[data-state=on]").waitFor(LIMIT);
        await page.waitForFunction(() => !document.querySelector(".plot.loading"), null, LIMIT);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert(wide <= 0, `${name} at ${size} width scrolls sideways by ${wide} px`);
        await shot(page, `${name}-${size}-${colorScheme}`);
      }
      await context.close();
    }
  }
  console.log(`- screenshots are in ${shots}`);
}
