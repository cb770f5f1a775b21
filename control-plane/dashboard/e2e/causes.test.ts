// At 3 a.m.: three services are slow (tests/causes.rs runs them), and their pages say in words which is the application, which the network, and
// which the mesh. What they looked like is kept in shots/.
import type { Page } from "playwright-core";
import { beforeAll, describe, expect, test } from "vitest";
import { violations } from "./axe";
import { dashboardUrl, visits } from "./browser";

/** Enough requests of each, of which the slow workload has its share. */
const TOLD_MS = 30_000;
const SHOTS = `${import.meta.dirname}/shots`;

interface Cause {
  name: string;
  service: string;
  /** Where somebody goes on the map. */
  click: string;
  words: RegExp;
  segment: string;
  workload: string;
}

const CAUSES: Cause[] = [
  {
    name: "slow-replica",
    service: "payments",
    click: '.node a[data-node="payments.demo"]',
    words: /^payments-3 is slow: its application takes \d+ ms, that of the others [\d.]+ ms$/,
    segment: "application",
    workload: "payments-3",
  },
  {
    name: "slow-network",
    service: "catalog",
    click: 'svg g[data-edge="web.demo→catalog.demo"]',
    words: /^most of the time is in the network between web and catalog-1, \d+ ms of \d+ ms$/,
    segment: "network",
    workload: "",
  },
  {
    name: "starved-sidecar",
    service: "cart",
    click: '.node a[data-node="cart.demo"]',
    words: /^the sidecar of cart-1 is short of CPU: (most|the largest part) of the time is there, \d+ ms of \d+ ms$/,
    segment: "server-sidecar",
    workload: "",
  },
];

let url: string;
const visit = visits();

beforeAll(async () => {
  url = await dashboardUrl();
});

async function fromTheMap(page: Page, { click, service }: Cause): Promise<void> {
  await page.locator(`svg g[data-edge="web.demo→${service}.demo"][data-mtls="all"]`).waitFor({ timeout: TOLD_MS });
  await page.locator(click).click();
  await page.locator("h1", { hasText: service }).waitFor();
}

describe.each(CAUSES)("$name", (cause) => {
  test.each(["light", "dark"] as const)("is told in one look, %s", async (theme) => {
    const { page, errors } = await visit(url, { theme, bypassCSP: true, reducedMotion: "reduce" });
    await fromTheMap(page, cause);
    const answer = page.locator(".answer-first .answer");
    await expect.poll(() => answer.locator("strong").innerText(), { timeout: TOLD_MS }).toMatch(cause.words);
    const told = await answer.locator("strong").innerText();
    for (const other of CAUSES) if (other !== cause) expect(told).not.toMatch(other.words);
    expect(await answer.getAttribute("data-segment")).toBe(cause.segment);
    expect(await answer.getAttribute("data-workload")).toBe(cause.workload);
    // Nobody has to look for it.
    const box = await answer.boundingBox();
    expect(box!.y + box!.height).toBeLessThan(page.viewportSize()!.height);
    await page.screenshot({ path: `${SHOTS}/${cause.name}-${theme}.png` });
    await page.locator(".hops").first().screenshot({ path: `${SHOTS}/${cause.name}-${theme}-split.png` });
    expect(await violations(page)).toEqual([]);
    expect(errors).toEqual([]);
  });
});

test("the slow workload is seen beside the others", async () => {
  const { page } = await visit(`${url}#/services/demo/payments`);
  const served = page.locator(".by-workload li");
  await served.nth(2).waitFor();
  expect(await served.evaluateAll((rows) => rows.map((row) => row.getAttribute("data-served"))).then((names) => names[0])).toBe("payments-3");
  const lengths = await page.locator(".by-workload .length > span").evaluateAll((bars) => bars.map((bar) => bar.getBoundingClientRect().width));
  expect(lengths[0]).toBeGreaterThan(3 * lengths[1]!);
});
