// Signing in and finding the addresses of all pages, for the stories that visit each.

/** A signed-in page in a context of its own. */
export async function signedIn({ browser, url, login, password, limit }, options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  const page = await context.newPage();
  await page.goto(`${url}/login`);
  await signIn(page, login, password);
  await page.waitForURL(`${url}/`, limit);
  return { context, page };
}

export async function signIn(page, login, password) {
  await page.getByLabel("User name").fill(login);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

/** The paths of all kinds of pages. */
export async function pathsOf({ url, ticket }, page) {
  const linked = async (path, selector) => {
    await page.goto(`${url}${path}`);
    return new URL(await page.locator(selector).first().evaluate((a) => a.href)).pathname;
  };
  const host = await linked("/", "tr a.main[href^='/hosts/']");
  const contract = await linked("/contracts", "table a.main");
  const paths = ["/", "/?state=problem", "/?group=site", "/tickets", "/tickets?state=all", ticket, host, `${host}?found=all&range=7d`,
    `${host}/rekey`, "/contracts", contract, "/health", "/account", "/account/password", "/nothing-here"];
  return paths.filter(Boolean);
}
