// Documents are edited, checked and applied on the mesh that `pillion demo` runs.
import type { Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { KINDS, template } from "../src/pages/edit/templates";
import { violations } from "./axe";
import { type Look, dashboardUrl, token, trafficPolicy, visits } from "./browser";

const NAME = "cart-apply-e2e";
const EDIT = `#/edit/demo/trafficpolicies/${NAME}`;
const spec = (attempts: number, request = "5s") => ({ targetRefs: [{ group: "", kind: "Service", name: "cart" }], retry: { attempts }, timeouts: { request } });

let url: string;
const visit = visits();

beforeAll(async () => {
  url = await dashboardUrl();
});

// Whatever the test before it has left behind.
beforeEach(() => trafficPolicy(url, NAME, spec(2)));

afterAll(() => trafficPolicy(url, NAME, null));

const field = (page: Page) => page.locator("#edit-text");
const said = (page: Page) => page.locator("#edit-standing");
const says = (page: Page, words: string) => said(page).getByText(words).waitFor();
const button = (page: Page, name: string) => page.getByRole("button", { name, exact: true });
const marked = (page: Page) => page.locator(".diff-lines > :is(.added, .removed)").evaluateAll((lines) => lines.map((line) => line.textContent));

async function give(page: Page, secret: string): Promise<void> {
  await page.getByLabel("Token", { exact: true }).fill(secret);
  await button(page, "Use this token").click();
}

/** The page with its stored text, checked once, so that the token is there. */
async function editing(how: Look = {}) {
  const visited = await visit(`${url}${EDIT}`, how);
  const { page } = visited;
  await field(page).waitFor();
  await button(page, "Check").click();
  await give(page, token());
  await says(page, "Nothing would change.");
  return { ...visited, text: await field(page).inputValue() };
}

async function stored(): Promise<{ spec: ReturnType<typeof spec> }> {
  return (await (await fetch(new URL(`v1/namespaces/demo/trafficpolicies/${NAME}`, url))).json()) as { spec: ReturnType<typeof spec> };
}

describe("a document", () => {
  test("is edited from its page; a token that does not do is told why, and the text stays", async () => {
    const { page } = await visit(`${url}#/documents/trafficpolicies/demo/${NAME}`);
    await page.getByRole("link", { name: "Edit", exact: true }).click();
    await field(page).waitFor();
    expect(page.url()).toContain(EDIT);
    const text = await field(page).inputValue();
    expect(text).toMatch(/^apiVersion: pillion.dev\/v1alpha1\nkind: TrafficPolicy\nmetadata:\n  name: cart-apply-e2e\n/);
    for (const noted of ["uid", "resourceVersion", "status"]) expect(text).not.toContain(noted);
    const mine = `# mine\n${text}`;
    await field(page).fill(mine);
    await button(page, "Check").click();
    await give(page, "plt_wrong");
    expect(await page.getByRole("alert").innerText()).toMatch(/token/);
    await give(page, token());
    await says(page, "Nothing would change.");
    expect(await page.evaluate(() => document.activeElement?.textContent), "whoever uses the keyboard goes on from there").toBe("Check");
    expect(await field(page).inputValue()).toBe(mine);
    expect(await button(page, "Apply").getAttribute("aria-disabled")).toBe("true");
  });

  test("that may not be read without a token either is asked one for", async () => {
    const { page } = await visit(url);
    // As a server beyond loopback answers.
    await page.route(`**/trafficpolicies/${NAME}`, async (route) => {
      if ((await route.request().allHeaders())["authorization"] === `Bearer ${token()}`) return route.continue();
      const body = JSON.stringify({ type: "urn:pillion:problem:token-missing", title: "A valid token is needed", status: 401 });
      return route.fulfill({ status: 401, contentType: "application/problem+json", body });
    });
    await page.goto(`${url}${EDIT}`);
    await page.getByRole("heading", { name: "Reading what is stored needs a token" }).waitFor();
    await give(page, token());
    await field(page).waitFor();
    expect(await field(page).inputValue()).toContain(`name: ${NAME}`);
  });

  test("that is wrong is told with every problem, each with a way to its line", async () => {
    const { page, text, errors } = await editing();
    await field(page).fill(text.replace("attempts: 2", "attempts: 99").replace("request: 5s", "request: soon").replace("name: cart\n", "name: nowhere\n"));
    await field(page).press("Control+Enter");
    await says(page, "3 problems. Nothing was changed.");
    const problems = page.locator(".edit-notice.failing");
    expect(await problems.locator("h3").innerText()).toBe(`TrafficPolicy demo/${NAME}`);
    expect((await problems.locator("code").allInnerTexts()).sort()).toEqual(["spec.retry.attempts", "spec.targetRefs[0].name", "spec.timeouts.request"]);
    expect(await page.locator(".edit-lines strong").count()).toBe(3);
    await problems.locator("li", { hasText: "attempts" }).getByRole("button").click();
    const line = await field(page).evaluate((area: HTMLTextAreaElement) => area.value.slice(area.selectionStart, area.selectionEnd));
    expect(line).toBe("    attempts: 99");
    expect(await button(page, "Apply").getAttribute("aria-disabled")).toBe("true");
    // What is no YAML at all has a line, too.
    await field(page).fill("kind: [");
    await button(page, "Check").click();
    await page.locator(".edit-notice.failing", { hasText: "is not YAML" }).getByRole("button", { name: /line \d/ }).waitFor();
    expect(errors.filter((error) => !/4(00|01|22)/.test(error))).toEqual([]);
  });

  test("is applied as the check has shown, line by line", async () => {
    const { page, text } = await editing();
    const wanted = text.replace("attempts: 2", "attempts: 3");
    await field(page).fill(wanted);
    await says(page, "The text has changed since.");
    await button(page, "Check").click();
    await says(page, "1 document would change.");
    expect(await marked(page)).toEqual(["−removed:     attempts: 2", "+added:     attempts: 3"]);
    expect(await page.locator(".diff").getAttribute("aria-label")).toBe(`TrafficPolicy demo/${NAME}: 1 line added, 1 removed`);
    expect((await stored()).spec.retry.attempts).toBe(2);
    await button(page, "Apply").click();
    await says(page, "Applied: 1 document changed.");
    expect((await stored()).spec.retry.attempts).toBe(3);
    expect(await button(page, "Back to what is stored").count()).toBe(0);
    await page.locator(".edit-results").getByRole("link", { name: `demo/${NAME}` }).click();
    await page.locator("pre.document", { hasText: "attempts: 3" }).waitFor();
  });

  test("that somebody else changes after the check is not overwritten, and nothing typed is lost", async () => {
    const { page, text } = await editing();
    const wanted = text.replace("attempts: 2", "attempts: 4");
    await field(page).fill(wanted);
    await button(page, "Check").click();
    await says(page, "1 document would change.");
    await trafficPolicy(url, NAME, spec(2, "7s"));
    await button(page, "Apply").click();
    await says(page, "Not applied: somebody has changed it since the check.");
    expect(await page.locator(".edit-notice").innerText()).toContain(`TrafficPolicy demo/${NAME} is at resourceVersion`);
    expect((await stored()).spec).toEqual(spec(2, "7s"));
    expect(await field(page).inputValue()).toBe(wanted);
    await button(page, "Check again").click();
    await says(page, "1 document would change.");
    await page.getByText("What is stored has changed since this text was begun.").waitFor();
    expect((await marked(page)).sort()).toEqual(["+added:     attempts: 4", "+added:     request: 5s", "−removed:     attempts: 2", "−removed:     request: 7s"].sort());
    // To another page and back, and to what is stored and back.
    await page.getByRole("link", { name: "Events" }).click();
    await page.getByRole("heading", { name: "Events" }).waitFor();
    await page.getByRole("link", { name: "Apply", exact: true }).click();
    await page.getByRole("link", { name: `demo/${NAME}` }).click();
    await expect.poll(() => field(page).inputValue()).toBe(wanted);
    await button(page, "Back to what is stored").click();
    await expect.poll(() => field(page).inputValue()).toContain("request: 7s");
    await button(page, "Bring my text back").click();
    expect(await field(page).inputValue()).toBe(wanted);
  });
});

test("where reading needs a token it is asked for once, and all pages use it", async () => {
  const { page } = await visit("about:blank");
  const asked: string[] = [];
  await page.route("**/v1/**", async (route) => {
    if ((await route.request().allHeaders())["authorization"] === `Bearer ${token()}`) return route.continue();
    asked.push(route.request().url());
    const body = JSON.stringify({ type: "urn:pillion:problem:token-missing", title: "A valid token is needed", status: 401 });
    return route.fulfill({ status: 401, contentType: "application/problem+json", body });
  });
  await page.goto(`${url}#/services/demo/cart`);
  await page.getByRole("heading", { name: "Looking at this mesh needs a token" }).waitFor();
  await give(page, token());
  await page.getByRole("heading", { name: "Endpoints" }).waitFor();
  const refused = asked.length;
  await page.goto(`${url}${EDIT}`);
  await field(page).waitFor();
  await page.goto(`${url}#/explain?from=web.demo&to=cart.demo`);
  await page.locator("[data-verdict]").waitFor();
  expect(asked.length).toBe(refused);
});

/** As a server beyond loopback answers: only this token, and while it holds; `covers` says whether it is for what is asked. */
async function guarded(page: Page, covers: (path: string) => boolean = () => true): Promise<{ revoked: boolean }> {
  const token_ = { revoked: false };
  await page.route("**/v1/**", async (route) => {
    const sent = (await route.request().allHeaders())["authorization"];
    const refuse = (status: number, reason: string, detail: string) =>
      route.fulfill({ status, contentType: "application/problem+json", body: JSON.stringify({ type: `urn:pillion:problem:${reason}`, title: "A valid token is needed", status, detail }) });
    if (sent !== `Bearer ${token()}`) return refuse(401, "token-missing", "");
    if (token_.revoked) return refuse(401, "token-revoked", "the token was revoked");
    if (!covers(new URL(route.request().url()).pathname)) return refuse(403, "token-lacks-namespace", "this is about all namespaces, the token is for demo only");
    return route.continue();
  });
  return token_;
}

test("a token of one namespace edits and applies there, and what needs the whole mesh says so", async () => {
  const { page } = await visit("about:blank");
  await guarded(page, (path) => path.startsWith("/v1/namespaces/demo/") || path === "/v1/apply");
  await page.goto(`${url}${EDIT}`);
  await page.getByRole("heading", { name: "Looking at this mesh needs a token" }).waitFor();
  await page.getByText("pillion token create --role viewer").waitFor();
  await give(page, token());
  await field(page).waitFor();
  await page.locator(".banner", { hasText: "this is about all namespaces, the token is for demo only" }).waitFor();
  await field(page).fill((await field(page).inputValue()).replace("attempts: 2", "attempts: 3"));
  await button(page, "Check").click();
  await says(page, "1 document would change.");
  await button(page, "Apply").click();
  await says(page, "Applied: 1 document changed.");
  expect(await page.locator(".connection").innerText()).toBe("limited");
  await page.goto(`${url}#/workloads`);
  await page.getByRole("heading", { name: "This page needs a token for all namespaces" }).waitFor();
  await page.goto(`${url}#/live`);
  await page.locator('.live-standing[data-state="refused"]', { hasText: "for demo only" }).waitFor();
  await page.getByRole("button", { name: "Use another token" }).click();
  await page.getByRole("heading", { name: "Looking at this mesh needs a token" }).waitFor();
});

test("what a token shows ends when it is forgotten, or when any answer says that it does not hold", async () => {
  const { page } = await visit("about:blank");
  const guard = await guarded(page);
  const asks = page.getByRole("heading", { name: "Looking at this mesh needs a token" });
  const live = page.locator(".connection.live");
  await page.goto(`${url}${EDIT}`);
  await give(page, token());
  await live.waitFor();
  await button(page, "Forget the token").click();
  await asks.waitFor();
  expect(await page.getByRole("alert").count()).toBe(0);
  await give(page, token());
  await live.waitFor();
  await page.goto(`${url}#/workloads`);
  await page.locator("[data-workload]").first().waitFor();
  // The stream that is open stays so.
  guard.revoked = true;
  await asks.waitFor();
  expect(await page.getByRole("alert").innerText()).toBe("the token was revoked");
});

test("what a new document begins with is right as it is", async () => {
  const text = KINDS.map((kind) => template(kind, "cart.demo")).join("---\n");
  const headers = { authorization: `Bearer ${token()}`, "content-type": "application/yaml" };
  const answer = await fetch(new URL("v1/apply?dryRun=true", url), { method: "POST", headers, body: text });
  expect([answer.status, await answer.json()]).toMatchObject([200, { results: KINDS.map((kind) => ({ kind })) }]);
  const { page } = await visit(`${url}#/edit`);
  await page.getByLabel("Begin with").selectOption("TrafficPolicy");
  await page.getByLabel("for", { exact: true }).selectOption("cart.demo");
  await expect.poll(() => field(page).inputValue()).toBe(template("TrafficPolicy", "cart.demo"));
  expect(page.url()).toContain("#/edit?kind=TrafficPolicy&service=cart.demo");
});

test.each([
  ["light", 1280],
  ["dark", 360],
] as const)("everybody can use it, %s, %i wide", async (theme, width) => {
  const { page, text } = await editing({ theme, width, bypassCSP: true, reducedMotion: "reduce" });
  for (const [attempts, outcome] of [["99", "1 problem. Nothing was changed."], ["3", "1 document would change."]] as const) {
    await field(page).fill(text.replace("attempts: 2", `attempts: ${attempts}`));
    await button(page, "Check").click();
    await says(page, outcome);
    expect(await violations(page)).toEqual([]);
  }
  const [content, window_] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  expect(content).toBeLessThanOrEqual(window_!);
});
