// A headless Chromium that asks nobody outside for anything.
import { existsSync, readFileSync } from "node:fs";
import { type Browser, type BrowserContext, type Page, chromium } from "playwright-core";
import { afterAll, afterEach } from "vitest";

const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";

/** Where the dashboard of the running mesh is. Throws, saying what to do, where nothing answers. */
export async function dashboardUrl(): Promise<string> {
  const url = process.env["PILLION_DASHBOARD_URL"];
  if (!url) throw new Error("PILLION_DASHBOARD_URL is not set: start `pillion demo` and give the address that it prints.");
  try {
    const response = await fetch(new URL("v1/mesh", withSlash(url)), { signal: AbortSignal.timeout(5_000) });
    if (!response.ok) throw new Error(`/v1/mesh answers with status ${response.status}`);
  } catch (cause) {
    throw new Error(`No mesh answers at PILLION_DASHBOARD_URL=${url}: ${String(cause)}`, { cause });
  }
  return withSlash(url);
}

/** The token that may change things, and watch requests. */
export function token(): string {
  const file = process.env["PILLION_TOKEN_FILE"];
  if (!file) throw new Error("PILLION_TOKEN_FILE is not set: the file with the token that may change things; `deploy/setup/with-demo` sets it.");
  return readFileSync(file, "utf8").trim();
}

/** Applies a TrafficPolicy of the demo's namespace, or deletes it where there is no `spec`. */
export async function trafficPolicy(url: string, name: string, spec: object | null): Promise<void> {
  const headers = { authorization: `Bearer ${token()}`, "content-type": "application/json" };
  const signal = AbortSignal.timeout(10_000);
  const document = { apiVersion: "pillion.dev/v1alpha1", kind: "TrafficPolicy", metadata: { name, namespace: "demo" }, spec };
  const answer = await (spec === null
    ? fetch(new URL(`v1/namespaces/demo/trafficpolicies/${name}`, url), { method: "DELETE", headers, signal })
    : fetch(new URL("v1/apply", url), { method: "POST", headers, signal, body: JSON.stringify(document) }));
  if (!answer.ok) throw new Error(`TrafficPolicy ${name}: ${answer.status} ${await answer.text()}`);
}

function withSlash(url: string): string {
  return url.endsWith("/") ? url : `${url}/`;
}

export interface Look {
  width?: number;
  height?: number;
  theme?: "light" | "dark";
  reducedMotion?: "reduce" | "no-preference";
  /** Lets a test put its own script into the page; otherwise the page runs under its own policy. */
  bypassCSP?: boolean;
  /** A screen that takes fingers. */
  touch?: boolean;
  /** Adds up in `window.shifted` how much of the page moves by itself. */
  watchShifts?: boolean;
  /** Keeps in `window.slowest` the longest time from an event until its consequences were painted, milliseconds. */
  watchEvents?: boolean;
}

export interface Visit {
  page: Page;
  /** Errors that the page itself reported: exceptions, and what its security policy blocked. */
  errors: string[];
  end: () => Promise<void>;
}

let browser: Browser | null = null;

async function started(): Promise<Browser> {
  if (browser !== null) return browser;
  if (!existsSync(CHROMIUM)) throw new Error(`There is no Chromium at ${CHROMIUM}: install it, or name another in CHROMIUM.`);
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  return browser;
}

/** For one file of tests: what opens pages, each of which is closed at the end of its test, and the browser at the end of all. */
export function visits(): typeof visit {
  const open: Visit[] = [];
  afterEach(async () => {
    await Promise.all(open.splice(0).map((visited) => visited.end()));
  });
  afterAll(async () => {
    await browser?.close();
    browser = null;
  });
  return async (address, look) => {
    const visited = await visit(address, look);
    open.push(visited);
    return visited;
  };
}

/** Opens one page, with cookies and storage of its own, and collects what goes wrong in it. */
async function visit(address: string, look: Look = {}): Promise<Visit> {
  const context: BrowserContext = await (await started()).newContext({
    viewport: { width: look.width ?? 1280, height: look.height ?? 900 },
    colorScheme: look.theme ?? "light",
    reducedMotion: look.reducedMotion ?? "no-preference",
    bypassCSP: look.bypassCSP ?? false,
    hasTouch: look.touch ?? false,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(message.text());
  });
  if (look.watchShifts) await page.addInitScript(watchShifts);
  if (look.watchEvents) await page.addInitScript(watchEvents);
  await page.goto(address);
  return {
    page,
    errors,
    end: () => context.close(),
  };
}

function watchShifts(): void {
  const seen = window as unknown as { shifted: number };
  seen.shifted = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries() as (PerformanceEntry & { value: number; hadRecentInput: boolean })[]) {
      if (!entry.hadRecentInput) seen.shifted += entry.value;
    }
  }).observe({ type: "layout-shift", buffered: true });
}

function watchEvents(): void {
  const seen = window as unknown as { slowest: number };
  seen.slowest = 0;
  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) seen.slowest = Math.max(seen.slowest, duration);
  }).observe({ type: "event", durationThreshold: 16, buffered: true } as PerformanceObserverInit);
}
