// The dashboard of a busy mesh of 200 services and 1,000 edges (`pillion-scale busy`): readable, and quick under the hand.
import type { Page } from "playwright-core";
import { beforeAll, describe, expect, test } from "vitest";
import { violations } from "./axe";
import { type Look, type Visit, dashboardUrl, visits } from "./browser";

const SERVICES = 200;
const EDGES = 1000;
/** From the click on a bookmark until every service is there. */
const LOAD_MS = 1_000;
/** From a key or a click until what it does is seen. */
const RESPONSE_MS = 100;
/** How much of what is in sight may move by itself, as browsers reckon it; 0.1 is called good. */
const SHIFT = 0.02;
/** How often something is measured: others use this machine, too. */
const ROUNDS = 5;

let url: string;
const visit = visits();

beforeAll(async () => {
  url = await dashboardUrl();
});

const look = (fragment = "", how: Look = {}): Promise<Visit> => visit(`${url}${fragment}`, how);

async function whole(page: Page): Promise<void> {
  await page.waitForFunction((many) => document.querySelectorAll(".node").length >= many, SERVICES);
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
const places = (page: Page) => page.locator(".node").evaluateAll((nodes) => nodes.map((node) => (node as HTMLElement).style.transform));
const viewOf = (page: Page) => page.locator(".map-content").evaluate((map) => (map as HTMLElement).style.transform);

describe("two hundred services", { retry: 2 }, () => {
  test("are there within a second", async () => {
    const times: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const { page, errors, end } = await look();
      await whole(page);
      times.push(await page.evaluate(() => performance.now()));
      expect(errors).toEqual([]);
      await end();
    }
    console.log(`loaded within ${times.map((time) => Math.round(time)).join(", ")} ms`);
    // The best of them: what else runs here makes it longer, nothing makes it shorter.
    expect(Math.min(...times)).toBeLessThan(LOAD_MS);
  });

  test("are there at once, and nothing moves by itself", async () => {
    const { page } = await look("", { watchShifts: true });
    await whole(page);
    await page.waitForTimeout(3_000);
    const shift = await page.evaluate(() => (window as unknown as { shifted: number }).shifted);
    console.log(`layout shift ${shift.toFixed(4)}`);
    expect(shift).toBeLessThan(SHIFT);
  });

  test("answer to key and mouse within a tenth of a second", async () => {
    const { page } = await look("", { watchEvents: true });
    await whole(page);
    const map = (await page.locator(".map").boundingBox())!;
    const center = { x: map.x + map.width / 2, y: map.y + map.height / 2 };
    const deeds: Record<string, (round: number) => Promise<void>> = {
      "a letter of a search": (round) => page.getByLabel("Find a service").press("pay me".charAt(round)),
      "only unhealthy": () => page.getByRole("button", { name: "Only unhealthy" }).click(),
      "zoom in": () => page.getByRole("button", { name: "Zoom in" }).click(),
      "an arrow key": async () => {
        await page.locator(".node a[tabindex='0']").focus();
        await page.keyboard.press("ArrowRight");
      },
      "pointing at a service": async (round) => {
        const chip = (await page.locator(".node:not(.faded) a").nth(20 + round).boundingBox())!;
        await page.mouse.move(chip.x + 4, chip.y + 4);
      },
      "dragging the map": async () => {
        await page.mouse.move(center.x, map.y + map.height - 8);
        await page.mouse.down();
        await page.mouse.move(center.x - 60, map.y + map.height - 40, { steps: 4 });
        await page.mouse.up();
      },
    };
    const table: string[] = [];
    const found: Record<string, number> = {};
    for (const [name, deed] of Object.entries(deeds)) {
      const times: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        await page.evaluate(() => ((window as unknown as { slowest: number }).slowest = 0));
        await deed(round);
        // The browser tells of an event once it has painted what came of it.
        await page.waitForTimeout(250);
        times.push(await page.evaluate(() => (window as unknown as { slowest: number }).slowest));
      }
      found[name] = median(times);
      table.push(`${name}: ${times.join(", ")} ms`);
      await page.getByLabel("Find a service").fill("");
    }
    console.log(table.join("\n"));
    for (const [name, time] of Object.entries(found)) expect(time, name).toBeLessThan(RESPONSE_MS);
  });
});

test("figures change, places don't", async () => {
  const { page } = await look();
  await whole(page);
  await page.waitForFunction((many) => Number(/(\d+) edges/.exec(document.querySelector(".toolbar")?.textContent ?? "")?.[1]) >= many, EDGES);
  const figures = () => page.locator(".node .rps").allTextContents();
  const [where, what, view] = [await places(page), await figures(), await viewOf(page)];
  await expect.poll(async () => (await figures()).join() !== what.join(), { timeout: 10_000 }).toBe(true);
  expect(await places(page)).toEqual(where);
  expect(await viewOf(page)).toBe(view);
});

describe("finding one's way", () => {
  test("a search dims the rest, Enter looks at the first, and its calls alone have labels; all of it is in the address", async () => {
    const { page, errors } = await look();
    await whole(page);
    await page.keyboard.press("/");
    await page.locator("input[aria-label='Find a service']:focus").waitFor();
    await page.keyboard.type("ledger");
    expect(await page.getByLabel("Find a service").inputValue()).toBe("ledger");
    await page.waitForFunction(() => document.querySelectorAll(".node:not(.faded)").length === 8);
    expect(await page.locator(".toolbar [role=status]").innerText()).toBe("8 services found; Enter looks at the first");
    expect(page.url()).toContain("search=ledger");
    expect(await page.getByLabel("Find a service").inputValue()).toBe("ledger");
    await page.keyboard.press("Enter");
    const focus = page.locator(".toolbar .focus a");
    await focus.waitFor();
    const name = await focus.innerText();
    expect(name).toContain("-ledger");
    // Its calls stand out, each with its figures.
    await page.locator(".edge.bare").first().waitFor();
    expect(await page.locator(".edge.bare").first().getAttribute("aria-label")).toMatch(/calls .* rps, .* succeed/);
    await page.getByRole("button", { name: "Only its calls" }).click();
    await page.waitForFunction(() => document.querySelectorAll(".node").length < 60);
    const shared = await look(new URL(page.url()).hash);
    await shared.page.locator(".toolbar .focus a", { hasText: name }).waitFor();
    expect(await shared.page.locator(".node").count()).toBe(await page.locator(".node").count());
    await page.getByRole("button", { name: "Look at all again" }).click();
    await whole(page);
    expect(errors).toEqual([]);
  });

  test("only the unhealthy stay, where they were", async () => {
    const { page } = await look();
    await whole(page);
    const before = await page.locator(".node").evaluateAll((nodes) => nodes.map((node) => [node.querySelector("a")!.getAttribute("data-node"), (node as HTMLElement).style.transform]));
    await page.getByRole("button", { name: "Only unhealthy" }).click();
    await page.waitForFunction((many) => document.querySelectorAll(".node").length < many, SERVICES);
    const left = await page.locator(".node").evaluateAll((nodes) => nodes.map((node) => [node.querySelector("a")!.getAttribute("data-node"), (node as HTMLElement).style.transform]));
    expect(left.length).toBeGreaterThan(3);
    const known = new Map(before as [string, string][]);
    for (const [id, place] of left) expect(known.get(id!), id!).toBe(place);
    expect(page.url()).toContain("unhealthy=1");
  });

  test("a namespace by itself is small enough for all its figures", async () => {
    const { page } = await look("#/?namespace=payments");
    await page.waitForFunction(() => document.querySelectorAll(".node").length === 25);
    await page.goto(`${url}#/?namespace=payments&view=table`);
    await page.locator("tr[data-service]").first().waitFor();
    expect(await page.locator("tr[data-service]").count()).toBe(25);
  });

  test("by keyboard: Tab comes to the map once, arrows go from service to service, plus and zero zoom", async () => {
    const { page } = await look();
    await whole(page);
    expect(await page.locator(".node a[tabindex='0']").count()).toBe(1);
    await page.locator(".node a[tabindex='0']").focus();
    const focused = () => page.evaluate(() => document.activeElement?.getAttribute("data-node"));
    const first = await focused();
    await page.keyboard.press("ArrowRight");
    expect(await focused()).not.toBe(first);
    // What has the focus is in sight.
    const [node, map] = [(await page.locator(":focus").boundingBox())!, (await page.locator(".map").boundingBox())!];
    expect(node.x >= map.x - 1 && node.x + node.width <= map.x + map.width + 1 && node.y >= map.y - 1 && node.y + node.height <= map.y + map.height + 1).toBe(true);
    const before = await viewOf(page);
    await page.keyboard.press("+");
    expect(await viewOf(page)).not.toBe(before);
    await page.keyboard.press("0");
    await page.keyboard.press("Enter");
    await page.locator(".page-head h1 .badge").waitFor();
    expect(page.url()).toContain("#/services/");
  });

  test("by mouse: a drag moves the map and opens nothing", async () => {
    const { page } = await look();
    await whole(page);
    const box = (await page.locator(".node a").nth(90).boundingBox())!;
    const before = await viewOf(page);
    await page.mouse.move(box.x + 10, box.y + 10);
    await page.mouse.down();
    await page.mouse.move(box.x - 70, box.y - 30, { steps: 4 });
    await page.mouse.up();
    expect(await viewOf(page)).not.toBe(before);
    expect(new URL(page.url()).hash).not.toContain("services");
  });
});

test("the wheel zooms with Ctrl, and two fingers do; the wheel alone scrolls the page", async () => {
  const { page } = await look("", { touch: true });
  await whole(page);
  const map = (await page.locator(".map").boundingBox())!;
  const [x, y] = [map.x + map.width / 2, map.y + 200];
  const scale = async () => Number(/scale\(([\d.]+)\)/.exec(await viewOf(page))![1]);
  const before = await scale();
  await page.mouse.move(x, y);
  await page.keyboard.down("Control");
  await page.mouse.wheel(0, -120);
  await page.keyboard.up("Control");
  await expect.poll(scale).toBeGreaterThan(before);
  const zoomed = await scale();
  await page.mouse.wheel(0, 120);
  await expect.poll(() => page.evaluate(() => scrollY)).toBeGreaterThan(0);
  expect(await scale()).toBe(zoomed);
  const scrolled = await page.evaluate(() => scrollY);
  const fingers = (apart: number) => [{ x: x - apart, y: y - scrolled }, { x: x + apart, y: y - scrolled }];
  const session = await page.context().newCDPSession(page);
  const touch = (type: "touchStart" | "touchMove" | "touchEnd", touchPoints: { x: number; y: number }[]) => session.send("Input.dispatchTouchEvent", { type, touchPoints });
  await touch("touchStart", fingers(120));
  for (const apart of [100, 80, 60, 40]) await touch("touchMove", fingers(apart));
  await touch("touchEnd", []);
  await expect.poll(scale).toBeLessThan(zoomed * 0.6);
});

describe("everyone can use", () => {
  test.each(["light", "dark"] as const)("the large map, %s", async (theme) => {
    const { page } = await look("", { theme, reducedMotion: "reduce", bypassCSP: true });
    await whole(page);
    expect(await violations(page)).toEqual([]);
  });

  test("the large map on a phone, without scrolling sideways", async () => {
    const { page } = await look("", { width: 375, height: 780 });
    await whole(page);
    const [content, window_] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    expect(content).toBeLessThanOrEqual(window_!);
    const [text] = await page.locator(".node strong").evaluateAll((names) => names.map((name) => name.getBoundingClientRect().height));
    expect(text, "names can be read").toBeGreaterThan(11);
  });
});
