// The page of live requests on the mesh that `pillion demo` runs: a token first, then what is asked for and nothing else.
import { createRequire } from "node:module";
import type { Page } from "playwright-core";
import { beforeAll, describe, expect, test } from "vitest";
import { KEPT } from "../src/state/tap";
import { type Look, type Visit, dashboardUrl, token, visits } from "./browser";

/** A demo that has just started still has to make its first requests. */
const TRAFFIC_MS = 30_000;

let url: string;
const visit = visits();

beforeAll(async () => {
  url = await dashboardUrl();
});

const look = (fragment: string, how: Look = {}): Promise<Visit> => visit(`${url}${fragment}`, how);

async function watching(fragment: string, how: Look = {}): Promise<Visit> {
  const visited = await look(fragment, how);
  await visited.page.getByLabel("Token", { exact: true }).fill(token());
  await visited.page.keyboard.press("Enter");
  await rows(visited.page).first().waitFor({ timeout: TRAFFIC_MS });
  return visited;
}

const rows = (page: Page) => page.locator(".live-list tbody tr");
const PAYMENTS = "#/live?resource=svc%2Fpayments.demo&seenBy=callers";

describe("live requests", () => {
  test("need a token, and a wrong one is told", async () => {
    const { page } = await look("#/live");
    await page.getByText("Watching live requests needs a token").waitFor();
    expect(await rows(page).count()).toBe(0);
    await page.getByLabel("Token", { exact: true }).fill("plt_wrong");
    await page.getByRole("button", { name: "Use this token" }).click();
    await page.getByRole("alert").waitFor();
    await page.getByLabel("Token", { exact: true }).fill(token());
    await page.getByRole("button", { name: "Use this token" }).click();
    await rows(page).first().waitFor({ timeout: TRAFFIC_MS });
    await page.getByRole("button", { name: "Forget the token" }).click();
    await page.getByText("Watching live requests needs a token").waitFor();
  });

  test("are those that the address asks for, with the network's share, and can be chosen by keyboard", async () => {
    const { page, errors } = await watching(PAYMENTS);
    const texts = await rows(page).allInnerTexts();
    for (const text of texts) expect(text).toMatch(/cart → payments/);
    expect(await page.locator(".live-standing").innerText()).toMatch(/Watching: \d+ sidecars? tells?/);
    // Some have no share of it that could be told: what was refused, for one.
    const split = rows(page).filter({ has: page.locator('.hop-bar[aria-label*="network"][aria-label*="application"]') });
    await split.first().waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    await split.first().getByRole("button").focus();
    await page.keyboard.press("Enter");
    const chosen = await page.locator(".live-chosen").innerText();
    expect(chosen).toMatch(/Peer\s+spiffe:\/\/[^/]+\/ns\/demo\/sa\/payments/);
    expect(chosen).toMatch(/the sidecar of cart-1\.demo, outbound/);
    expect(chosen).toMatch(/mTLS[\s\S]*network[\s\S]*application/);
    expect(errors.filter((error) => !error.includes("401"))).toEqual([]);
  });

  test("of a service are those that it receives, too, unless somebody asks for what it sends; then that is said", async () => {
    const { page } = await watching("#/live?resource=svc/payments.demo");
    await page.getByLabel("Direction").selectOption("sent");
    await page.getByRole("button", { name: "Watch" }).click();
    await page.getByText("No request has fitted so far").waitFor();
    expect(await page.locator(".live-frame .empty").innerText()).toContain("Direction sent");
  });

  test("are narrowed by the form, which leads to an address that can be shared", async () => {
    const { page } = await watching(PAYMENTS);
    await page.getByLabel("Path begins with").fill("/nowhere");
    await page.getByRole("button", { name: "Watch" }).click();
    await page.getByText("No request has fitted so far").waitFor();
    expect(page.url()).toContain("path=%2Fnowhere");
    await page.getByLabel("Status").fill("9xx");
    await page.getByRole("button", { name: "Watch" }).click();
    await page.locator('.live-standing[data-state="refused"]', { hasText: "status must be such as" }).waitFor();
    await page.goBack();
    await page.getByText("No request has fitted so far").waitFor();
  });

  test("stand still while they are paused, and the page never moves", async () => {
    const { page } = await watching("#/live");
    const box = () => page.locator(".live-frame").boundingBox();
    const before = await box();
    await page.getByRole("button", { name: "Pause" }).click();
    const newest = () => rows(page).first().locator(".when").innerText();
    const shown = await newest();
    await page.getByRole("button", { name: /Resume \(\d+ new\)/ }).waitFor();
    expect(await newest()).toBe(shown);
    await page.getByRole("button", { name: /Resume/ }).click();
    await expect.poll(newest).not.toBe(shown);
    expect(await rows(page).count()).toBeLessThanOrEqual(KEPT);
    expect(await box()).toEqual(before);
  });

  test.each(["light", "dark"] as const)("can be used by everyone, %s", async (theme) => {
    const { page } = await watching(PAYMENTS, { theme, reducedMotion: "reduce", bypassCSP: true });
    await page.getByRole("button", { name: "Pause" }).click();
    await rows(page).first().getByRole("button").click();
    await page.addScriptTag({ path: createRequire(import.meta.url).resolve("axe-core/axe.min.js") });
    const violations = await page.evaluate(async () => {
      const { axe } = window as unknown as { axe: typeof import("axe-core") };
      const result = await axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] });
      return result.violations
        .filter(({ impact }) => impact === "serious" || impact === "critical")
        .map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} (${node.failureSummary})`).join("; ")}`);
    });
    expect(violations).toEqual([]);
  });

  test("fit a phone, without scrolling sideways", async () => {
    const { page } = await watching(PAYMENTS, { width: 360, height: 780 });
    const [content, window_] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    expect(content).toBeLessThanOrEqual(window_!);
  });
});
