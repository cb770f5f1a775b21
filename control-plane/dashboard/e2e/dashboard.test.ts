// What a person sees of the mesh that `pillion demo` runs, at PILLION_DASHBOARD_URL, in headless Chromium.
import type { Page } from "playwright-core";
import { beforeAll, describe, expect, test } from "vitest";
import { violations } from "./axe";
import { relay } from "./relay";
import { type Look, type Visit, dashboardUrl, trafficPolicy, visits } from "./browser";

const SERVICES = ["traffic", "web", "catalog", "cart", "payments", "payments-v1", "payments-v2"];
const CALLS = ["traffic→web", "web→catalog", "web→cart", "cart→payments"].map(full);
const SPLITS = ["payments→payments-v1", "payments→payments-v2"].map(full);
/** A demo that has just started still has to make its first requests. */
const TRAFFIC_MS = 30_000;
/** payments-3 fails for 15 s and is well for 15 s. */
const BREAKER_MS = 40_000;

function full(edge: string): string {
  return edge.split("→").map((name) => `${name}.demo`).join("→");
}

let url: string;
const visit = visits();

beforeAll(async () => {
  url = await dashboardUrl();
});

const look = (fragment = "", how: Look = {}, at = url): Promise<Visit> => visit(`${at}${fragment}`, how);

/** The number at the start of a text such as "38.2 rps". */
function leading(text: string): number {
  return Number.parseFloat(text.replace(/[^\d.]*/, ""));
}

async function edgeLabel(page: Page, edge: string): Promise<string> {
  return (await page.locator(`svg g[data-edge="${edge}"]`).first().getAttribute("aria-label")) ?? "";
}

/** Waits until every given edge is on the map with requests on it. */
async function traffic(page: Page, edges: string[]): Promise<void> {
  await page.waitForFunction(
    (wanted) => wanted.every((edge) => Number(document.querySelector(`svg g[data-edge="${edge}"]`)?.getAttribute("data-rps")) > 0),
    edges,
    { timeout: TRAFFIC_MS },
  );
}

describe("the map", () => {
  test("shows every service with its figures", async () => {
    const { page, errors } = await look();
    await traffic(page, CALLS);
    for (const name of SERVICES) {
      const node = page.locator(`.node a[data-node="${name}.demo"]`);
      expect(await node.locator("strong").innerText()).toBe(name);
      expect(await node.innerText(), name).toMatch(/\d\/\d ready/);
    }
    const web = await page.locator('.node a[data-node="web.demo"]').innerText();
    expect(web).toMatch(/[\d.]+ rps/);
    expect(web).toMatch(/[\d.]+ %/);
    expect(web).toMatch(/p99 ≤?[\d.]+ (µs|ms|s)/);
    expect(errors).toEqual([]);
  });

  test("labels each call with rate, success and latency, and with a lock where mutual TLS carries it", async () => {
    const { page } = await look();
    await traffic(page, CALLS);
    for (const edge of CALLS) {
      const group = page.locator(`svg g[data-edge="${edge}"]`);
      const words = await edgeLabel(page, edge);
      expect(words).toContain("mutual TLS (TLS 1.3)");
      expect(await group.getAttribute("data-mtls"), edge).toBe("all");
      expect(await group.locator(".glyph rect").isVisible(), `lock of ${edge}`).toBe(true);
      expect(leading(await group.locator(".rps").textContent() ?? ""), edge).toBeGreaterThan(0);
      expect(await group.locator(".second").textContent(), edge).toMatch(/p50[ ≤][\d.]+.* · p99[ ≤][\d.]+ (µs|ms|s)/);
    }
    expect(await page.locator(".edge.plaintext").count()).toBe(0);
  });

  test("shows the canary's share of payments", async () => {
    const { page } = await look();
    await traffic(page, SPLITS);
    const shares = await Promise.all(SPLITS.map(async (edge) => leading(await page.locator(`svg g[data-edge="${edge}"] .share`).textContent() ?? "")));
    expect(shares[0]! + shares[1]!).toBeGreaterThan(99);
    expect(shares[0]! + shares[1]!).toBeLessThan(101);
    expect(shares[0]).toBeGreaterThan(shares[1]!);
  });

  test("changes its figures live, and moves nothing while it does", async () => {
    const { page } = await look();
    await traffic(page, [...CALLS, ...SPLITS]);
    const places = () => page.locator(".node").evaluateAll((nodes) => nodes.map((node) => (node as HTMLElement).style.transform));
    const figures = () => page.locator(".edges text").allTextContents();
    const [where, what] = [await places(), await figures()];
    await expect.poll(async () => (await figures()).join() !== what.join(), { timeout: 10_000, interval: 250 }).toBe(true);
    expect(await places()).toEqual(where);
  });

  test("says the same as the table", async () => {
    const { page } = await look("#/?view=table");
    for (const name of SERVICES) await page.locator(`tr[data-service="${name}.demo"]`).waitFor();
    for (const edge of CALLS) {
      const row = page.locator(`tr[data-edge="${edge}"]`);
      await row.waitFor({ timeout: TRAFFIC_MS });
      expect(await row.innerText()).toContain("mutual TLS (TLS 1.3)");
    }
    await expect.poll(async () => leading(await page.locator(`tr[data-edge="${CALLS[1]}"] td.number`).nth(1).innerText()), { timeout: TRAFFIC_MS }).toBeGreaterThan(0);
  });
});

describe("a service's page", () => {
  test("is reached by keyboard from the map", async () => {
    const { page } = await look();
    const node = page.locator('.node a[data-node="payments.demo"]');
    await node.waitFor();
    // Tab comes to the map once; arrows go on from there.
    const onMap = () => page.evaluate(() => document.activeElement?.hasAttribute("data-node") ?? false);
    for (let presses = 0; presses < 40 && !(await onMap()); presses++) await page.keyboard.press("Tab");
    const isThere = () => node.evaluate((element) => element === document.activeElement);
    for (const key of ["ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowUp", "ArrowDown", "ArrowDown"]) {
      if (await isThere()) break;
      await page.keyboard.press(key);
    }
    expect(await isThere(), "payments is reached by arrows").toBe(true);
    expect(await node.evaluate((element) => getComputedStyle(element).outlineStyle), "focus is visible").not.toBe("none");
    await page.keyboard.press("Enter");
    await page.locator("h1", { hasText: "payments" }).waitFor();
    expect(page.url()).toContain("#/services/demo/payments");
    // Both follow the heading, a moment later.
    await page.waitForFunction(() => document.title === "payments.demo · pillion" && document.activeElement?.id === "main");
    await page.goBack();
    await node.waitFor();
  });

  test("draws its golden figures", async () => {
    const { page, errors } = await look("#/services/demo/web?minutes=1");
    await page.locator(".chart canvas").nth(2).waitFor();
    for (const [index, title] of ["Requests", "Success", "Latency"].entries()) {
      const chart = page.locator(".chart").nth(index);
      expect(await chart.locator("h3").innerText()).toBe(title);
      // A line in the middle of the plot, in the line's own colour: axes alone would not do.
      await expect.poll(() => inkOf(page, index), { timeout: TRAFFIC_MS, message: `${title} is drawn` }).toBeGreaterThan(20);
      expect(await chart.locator(".legend .value").first().innerText()).toMatch(/^>?[\d.]+k? (rps|%|µs|ms|s)$/);
    }
    await page.locator("summary", { hasText: "Requests as a table" }).click();
    expect(await page.locator(".chart details[open] tbody tr").count()).toBeGreaterThan(3);
    expect(errors).toEqual([]);
  });

  test("lists endpoints with readiness, callers, callees and the route's split", async () => {
    const { page } = await look("#/services/demo/payments");
    await page.locator(".backends li").nth(1).waitFor();
    expect(await page.locator(".backends").innerText()).toMatch(/payments-v1[\s\S]*of 90 % by weight[\s\S]*payments-v2[\s\S]*of 10 % by weight/);
    await page.goto(`${url}#/services/demo/payments-v1`);
    await page.locator('tr[data-workload="payments-3"]').waitFor();
    for (const workload of ["payments-1", "payments-2", "payments-3"]) {
      expect(await page.locator(`tr[data-workload="${workload}"]`).innerText()).toMatch(/ready/);
    }
    await page.goto(`${url}#/services/demo/web`);
    const callees = page.locator('section[aria-labelledby="to-title"]');
    await callees.locator("a", { hasText: "catalog" }).first().waitFor({ timeout: TRAFFIC_MS });
    expect(await callees.innerText()).toContain("mTLS, TLS 1.3");
    expect(await page.locator('section[aria-labelledby="from-title"]').innerText()).toContain("traffic");
  });

  test("says whether it is the application, the network or the mesh", async () => {
    const { page, errors } = await look("#/services/demo/payments");
    // The demo's payments take their time; its sidecars and its network do not.
    await page.locator('.hops .all[data-most="application"]').waitFor({ timeout: TRAFFIC_MS });
    // Payments-3 may just be slow, and then stands out.
    expect(await page.locator(".hops .answer").innerText()).toMatch(/application|payments-3/);
    expect(await page.locator(".hops .all > .hop-bar").getAttribute("aria-label")).toMatch(/network .* %; .*application .* %/);
    for (const segment of ["client-sidecar", "network", "server-sidecar", "application"]) {
      expect(await page.locator(`.hop-key tr[data-segment="${segment}"]`).innerText(), segment).toMatch(/%[\s\S]*(µs|ms|s)/);
    }
    expect(await page.locator('.hop-edges li[data-edge="cart.demo→payments.demo"]').first().innerText()).toMatch(/application|payments-/);
    expect(errors).toEqual([]);
  });

  test("shows payments-3's breaker open", async () => {
    const { page } = await look("#/services/demo/payments-v1");
    const openNow = page.locator('tr[data-workload="payments-3"] [data-breaker="open"]');
    const told = page.locator('.events [data-kind="breaker-opened"]', { hasText: "payments-3" });
    await openNow.or(told).first().waitFor({ timeout: BREAKER_MS });
  });

  test("says what to do where there is no such service", async () => {
    const { page } = await look("#/services/demo/no-such-service");
    await page.getByText("The mesh knows no no-such-service.demo").waitFor();
    expect(await page.locator("main").innerText()).toContain("pillion apply -f");
  });
});

describe("an edge's page", () => {
  const address = "#/edges/cart.demo/payments.demo?minutes=1";

  test("is reached from the map, and draws how often, how well, how fast, and where the time went", async () => {
    const { page, errors } = await look();
    await traffic(page, CALLS);
    await page.locator('svg g[data-edge="cart.demo→payments.demo"]').click();
    await page.locator("h1", { hasText: "cart" }).waitFor();
    expect(page.url()).toContain("#/edges/cart.demo/payments.demo");
    const titles = ["Requests", "Success", "Latency", "Latency heatmap", "Where time went", "Errors by reason"];
    await page.locator(".chart canvas").nth(titles.length - 1).waitFor();
    expect(await page.locator(".chart").evaluateAll((all) => all.map((one) => one.getAttribute("data-chart")))).toEqual(titles);
    for (const index of [0, 2, 3, 4]) await expect.poll(() => inkOf(page, index), { timeout: TRAFFIC_MS, message: titles[index]! }).toBeGreaterThan(20);
    expect(await page.locator('[data-chart="Where time went"] .legend').innerText()).toMatch(/network[\s\S]*application\s+[\d.]+ (µs|ms|s)/);
    expect(await page.locator('[data-chart="Latency heatmap"] .plot').getAttribute("aria-label")).toMatch(/from [\d.]+ (µs|ms) to [\d.]+ (µs|ms|s)/);
    expect(errors).toEqual([]);
  });

  test("lists who serves it, endpoints as the caller sees them, and documents with their YAML", async () => {
    const { page, errors } = await look(address);
    await page.locator('tr[data-backend="payments-v1.demo"]').waitFor({ timeout: TRAFFIC_MS });
    expect(await page.locator('tr[data-backend="payments-v1.demo"]').innerText()).toMatch(/\d %[\s\S]*mTLS, TLS 1.3[\s\S]*rps/);
    const row = page.locator('tr[data-workload="payments-1"]');
    await row.waitFor();
    expect(await row.innerText()).toMatch(/ready[\s\S]*share/);
    await expect.poll(() => row.locator(".hop-bar").getAttribute("aria-label"), { timeout: TRAFFIC_MS }).toMatch(/application [\d.]+ (µs|ms)/);
    await page.locator(".policies").getByRole("link", { name: "demo/payments-canary", exact: true }).click();
    await page.locator(".document", { hasText: /kind: HTTPRoute[\s\S]*name: payments-canary[\s\S]*backendRefs:[\s\S]*weight: 90/ }).waitFor();
    await page.locator("a", { hasText: /^payments$/ }).first().click();
    await page.locator("h1", { hasText: "payments" }).waitFor();
    expect(errors).toEqual([]);
  });

  test("stands still while it is paused, at an address that others can open", async () => {
    const { page } = await look(address);
    await page.locator(".chart canvas").nth(5).waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByRole("button", { name: "Live" }).waitFor();
    expect(page.url()).toMatch(/until=\d{13}/);
    await page.locator(".range .at", { hasText: /paused at/ }).waitFor();
    const others = await look(new URL(page.url()).hash);
    await others.page.locator(".chart canvas").nth(5).waitFor();
    const table = async (of: Page) => {
      await of.locator("summary", { hasText: "Requests as a table" }).click();
      const rows = of.locator('[data-chart="Requests"] tbody tr');
      await rows.first().waitFor();
      return (await rows.allInnerTexts()).slice(-10);
    };
    expect(await table(others.page)).toEqual(await table(page));
    // Links lead to the same time.
    expect(await page.locator("h1 .end").first().getAttribute("href")).toMatch(/until=\d{13}/);
    await page.getByRole("button", { name: "Live" }).click();
    await page.getByRole("button", { name: "Pause" }).waitFor();
    expect(page.url()).not.toContain("until");
  });

  test("is narrowed by marking a part of a chart", async () => {
    const { page } = await look(address);
    const plot = page.locator('[data-chart="Latency"] .u-over');
    await plot.waitFor();
    const box = (await plot.boundingBox())!;
    await page.mouse.move(box.x + box.width * 0.3, box.y + 40);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.7, box.y + 60, { steps: 5 });
    await page.mouse.up();
    await page.waitForFunction(() => /seconds=2\d&until=/.test(location.hash));
    await page.locator(".range .at", { hasText: "paused at" }).waitFor();
  });

  test("says so where nothing goes that way", async () => {
    const { page } = await look("#/edges/catalog.demo/traffic.demo");
    await page.getByText("Nothing goes from catalog.demo to traffic.demo").waitFor();
  });
});

test("the map of an earlier moment is the mesh as it was", async () => {
  const { page, errors } = await look();
  await traffic(page, CALLS);
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByRole("button", { name: "Live" }).waitFor();
  await page.locator(".node a").first().waitFor();
  const figures = () => page.locator(".edges text").allTextContents();
  const before = await figures();
  await page.waitForTimeout(2_500);
  expect(await figures()).toEqual(before);
  await page.getByRole("button", { name: "Live" }).click();
  await expect.poll(async () => (await figures()).join() !== before.join(), { timeout: 10_000 }).toBe(true);
  expect(errors).toEqual([]);
});

describe("a policy", () => {
  const apply = (service: string, spec: object | null) =>
    trafficPolicy(url, `${service}-e2e`, spec && { targetRefs: [{ group: "", kind: "Service", name: service }], ...spec });
  const POLICY_MS = 20_000;

  test("says on the service's page what it does, in figures", async () => {
    await apply("web", {
      rateLimits: [{ name: "plenty", total: { requests: 100_000 } }],
      concurrency: { type: "fixed", limit: 50 },
    });
    try {
      const { page, errors } = await look("#/services/demo/web?minutes=1");
      const card = (name: string) => page.locator(`.activity [data-policy="${name}"]`);
      const figure = (name: string, label: string) => card(name).locator(".counts div", { hasText: label }).locator("dd");
      await card("concurrency").waitFor({ timeout: POLICY_MS });
      const cards = () => page.locator(".activity [data-policy]").evaluateAll((all) => all.map((one) => one.getAttribute("data-policy")));
      const before = await cards();
      expect(before).toEqual(["retry", "circuitBreaker", "rateLimits", "concurrency"]);
      await expect.poll(async () => leading(await figure("rateLimits", "admitted").innerText()), { timeout: POLICY_MS }).toBeGreaterThan(0);
      expect(await cards(), "figures bring nothing").toEqual(before);
      expect(await card("retry").innerText()).toMatch(/20 % budget[\s\S]*retries[\s\S]*recovered[\s\S]*over budget/);
      await expect.poll(() => card("concurrency").innerText(), { timeout: POLICY_MS }).toMatch(/fixed at 50[\s\S]*web-1\s+\d+ of 50/);
      expect(await card("rateLimits").innerText()).toMatch(/plenty\s+\d+ admitted, 0 limited/);
      expect(await page.locator('tr[data-workload="web-1"]').innerText()).toMatch(/share \d+[\s\S]*100 %/);
      expect(errors).toEqual([]);
    } finally {
      await apply("web", null);
    }
  });

  test("that has requests sent twice says so on the service's page", async () => {
    // Nearly every request is slow enough, and next to none may have company.
    await apply("payments", { hedge: { after: "1ms", budget: { percent: 1, minPerSecond: 0 } } });
    try {
      const { page, errors } = await look("#/services/demo/payments?minutes=1");
      const over = page.locator('.activity [data-policy="hedge"] .counts div', { hasText: "over budget" }).locator("dd");
      await expect.poll(async () => leading(await over.innerText()), { timeout: POLICY_MS }).toBeGreaterThan(0);
      expect(errors).toEqual([]);
    } finally {
      await apply("payments", null);
    }
  });

  test("that injects faults is told loudly while it does: in words, and at the service's place on map and table", async () => {
    const { page } = await look();
    const marked = page.locator('.node a[data-node="catalog.demo"] .fault-mark');
    await page.locator(".node a").first().waitFor();
    expect(await page.locator(".fault-mark").count()).toBe(0);
    const places = () => page.locator(".node").evaluateAll((nodes) => nodes.map((node) => (node as HTMLElement).style.transform));
    const before = await places();
    await apply("catalog", { faults: [{ name: "drill", delay: { duration: "1ms", percent: 50 }, for: "5m" }] });
    try {
      await marked.waitFor({ timeout: POLICY_MS });
      expect(await marked.innerText()).toBe("faults injected");
      expect(await places(), "a mark moves nothing").toEqual(before);
      expect(await page.locator(".faults").innerText()).toMatch(/on purpose[\s\S]*catalog: 50 % delayed by 1.0 ms; ends in \d/);
      await page.goto(`${url}#/?view=table`);
      await page.locator('tr[data-service="catalog.demo"] .fault-mark').waitFor();
      await page.goto(`${url}#/services/demo/catalog?minutes=1`);
      const delayed = page.locator('.activity [data-policy="faults"] .by', { hasText: /drill\s*\d+ delayed/ });
      await delayed.waitFor({ timeout: POLICY_MS });
    } finally {
      await apply("catalog", null);
    }
    await page.goto(url);
    await page.locator(".node a").first().waitFor();
    await expect.poll(() => page.locator(".fault-mark, .faults").count(), { timeout: POLICY_MS }).toBe(0);
  });
});

describe("a request", () => {
  test("is explained from a form, by keyboard, at an address that can be shared", async () => {
    const { page, errors } = await look("#/explain");
    await page.getByLabel("From").fill("cart.demo");
    await page.getByLabel("To", { exact: true }).fill("payments.demo:80");
    await page.getByLabel("Path").fill("/pay");
    await page.keyboard.press("Enter");
    await page.locator('[data-verdict="sent"]').waitFor();
    expect(page.url()).toContain("from=cart.demo");
    const steps = await page.locator(".steps").innerText();
    expect(steps).toMatch(/payments\.demo is a service of the mesh/);
    expect(steps).toMatch(/demo\/payments-canary, rule 0/);
    expect(steps).toContain("payments-v2-1");
    // Of payments-v1, which has a policy; payments' own values are defaults, and folded away.
    await page.locator('.steps tr[data-field="circuitBreaker.consecutiveFailures"]', { hasText: "TrafficPolicy demo/payments-breaker" }).waitFor();
    await page.getByLabel("From").fill("ghost.demo");
    await page.getByRole("button", { name: "Explain" }).click();
    await page.getByText("neither a Service nor a workload ghost").waitFor();
    // The browser itself tells of the answer that is none.
    expect(errors.filter((error) => !error.includes("404"))).toEqual([]);
  });

  test("takes the way that the service's page shows", async () => {
    const { page } = await look("#/services/demo/payments");
    await page.locator(".routes .split-key").waitFor();
    expect(await page.locator(".routes").innerText()).toMatch(/Any request[\s\S]*payments-v1:80 90 %[\s\S]*payments-v2:80 10 %/);
    await page.locator(".usual summary").first().click();
    expect(await page.locator('.policy tr[data-field="connections.maxRequests"]').innerText()).toMatch(/1024[\s\S]*default/);
  });
});

test("the workloads page shows identities and certificates", async () => {
  const { page } = await look("#/workloads");
  const row = page.locator('tr[data-workload="payments-3"]');
  await row.waitFor();
  const text = await row.innerText();
  expect(text).toMatch(/spiffe:\/\/[^/]+\/ns\/demo\/sa\//);
  expect(text).toMatch(/expires\s+(in|just)/);
  expect(text).toMatch(/connected/);
  expect(await row.locator("time").first().getAttribute("title")).toMatch(/\d{4}.*\d\d:\d\d:\d\d/);
});

describe("the identities page", () => {
  test("shows what ends soonest first, who issued it and when, and the root", async () => {
    const { page, errors } = await look("#/identities");
    const rows = page.locator("tr[data-identity]");
    await page.locator('tr[data-identity="payments-3"] time').first().waitFor();
    const ends = await rows.locator("td:nth-child(2) time").evaluateAll((times) => times.map((time) => Date.parse((time as HTMLTimeElement).dateTime)));
    expect(ends.length).toBeGreaterThan(5);
    expect(ends).toEqual([...ends].sort((a, b) => a - b));
    const root = (await page.locator("tr[data-anchor]").getAttribute("data-anchor")) ?? "";
    expect(root).toMatch(/^[0-9a-f]{64}$/);
    const text = await page.locator('tr[data-identity="payments-3"]').innerText();
    expect(text).toMatch(/spiffe:\/\/[^/]+\/ns\/demo\/sa\/payments/);
    expect(text).toMatch(/first of its sidecar|renewed \d+×/);
    expect(text).toContain(root.slice(0, 4));
    expect(await page.locator("tr[data-anchor]").innerText()).toMatch(/\d+ (d|days)\b/);
    expect(errors).toEqual([]);
  });

  test("calls out edges without mutual TLS, each with its page, and says where there are none", async () => {
    const { page } = await look("#/identities");
    await page.getByText("All calls of the last minutes were mutual TLS").waitFor({ timeout: TRAFFIC_MS });
    interface Seen {
      edges: { from: string; to: string; mtls: boolean }[];
    }
    const called = ({ from, to }: Seen["edges"][number]) => from === "cart.demo" && to === "payments.demo";
    const seen = async () => (await (await fetch(new URL("v1/mesh", url))).json()) as Seen;
    await expect.poll(async () => (await seen()).edges.some(called), { timeout: TRAFFIC_MS }).toBe(true);
    // All of the demo is encrypted: the page is told otherwise of one edge.
    const mesh = await seen();
    for (const edge of mesh.edges.filter(called)) edge.mtls = false;
    const told = { contentType: "text/event-stream", body: `event: mesh\ndata: ${JSON.stringify(mesh)}\n\n` };
    await page.route("**/v1/mesh/events", (route) => route.fulfill(told));
    await page.reload();
    await page.getByText("1 edge into the mesh in plaintext").waitFor();
    await page.locator('section[data-open-edges="1"]').getByRole("link", { name: "cart.demo → payments.demo" }).click();
    await page.waitForURL(/#\/edges\/cart\.demo\/payments\.demo/);
  });
});

test("the control plane's page shows how it and every sidecar stand", async () => {
  const { page, errors } = await look("#/control-plane");
  const sidecar = page.locator('tr[data-sidecar="payments-3"]');
  await sidecar.waitFor();
  await sidecar.getByText("acknowledged").waitFor();
  const shown = (await (await fetch(new URL("v1/mesh/control-plane", url))).json()) as { version: string; connected: number };
  const tiles = await page.locator(".tiles").innerText();
  expect(tiles).toContain(shown.version);
  expect(tiles).toMatch(/Up for\s+\d+ (s|min|h|d)/);
  expect(tiles).toMatch(new RegExp(`Sidecars connected\\s+${shown.connected}`));
  expect(await page.locator("tr[data-sidecar]").count()).toBe(shown.connected);
  expect(await sidecar.innerText()).toMatch(/ago|just now/);
  await page.getByText("No document is wrong, and no sidecar refuses what it is sent").waitFor();
  await page.getByText("Every registered workload has its stream").waitFor();
  expect(errors).toEqual([]);
});

test("the events page tells of the breaker in plain words, politely", async () => {
  const { page } = await look("#/events");
  await page.getByRole("button", { name: "Breakers" }).click();
  const event = page.locator('.events [data-kind="breaker-opened"]', { hasText: "payments-3" }).first();
  await event.waitFor({ timeout: BREAKER_MS });
  expect(await page.locator('[aria-live="polite"]').innerText()).toMatch(/\d+ events?/);
  expect(await event.locator("time").innerText()).toMatch(/ago|just now/);
});

describe("the theme", () => {
  const ground = (page: Page) => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);

  test("follows the system, changes by its switch, and is kept", async () => {
    const { page } = await look("", { theme: "light" });
    await page.locator("h1").waitFor();
    const light = await ground(page);
    await page.getByRole("button", { name: "Switch to dark theme" }).click();
    const dark = await ground(page);
    expect(dark).not.toBe(light);
    await page.reload();
    await page.getByRole("button", { name: "Switch to light theme" }).waitFor();
    expect(await ground(page)).toBe(dark);
  });

  test("is dark where the system is", async () => {
    const { page } = await look("", { theme: "dark" });
    await page.locator("h1").waitFor();
    const [red, green, blue] = (await ground(page)).match(/\d+/g)!.map(Number);
    expect(red! + green! + blue!).toBeLessThan(150);
  });
});

test("a workload leads to its service, where it is marked and in sight, and others can be", async () => {
  const { page } = await look("#/workloads");
  await page.getByRole("link", { name: "payments-2", exact: true }).click();
  const marked = page.locator("tr[aria-current]");
  await marked.waitFor();
  expect(page.url()).toContain("#/services/demo/payments?workload=payments-2");
  expect(await marked.getAttribute("data-workload")).toBe("payments-2");
  await expect.poll(() => marked.evaluate((row) => row.getBoundingClientRect().top < innerHeight && row.getBoundingClientRect().bottom > 0)).toBe(true);
  await page.locator('tr[data-workload="payments-3"] th a').click();
  await page.locator('tr[aria-current][data-workload="payments-3"]').waitFor();
  expect(await marked.count()).toBe(1);
  await page.goto(`${url}#/services/demo/cart?workload=payments-2`);
  await page.getByText("payments-2 is not among them now").waitFor();
});

describe("everyone can use", () => {
  const pages = { map: "#/", table: "#/?view=table", service: "#/services/demo/payments-v1", workloads: "#/workloads", events: "#/events",
    identities: "#/identities", "control plane": "#/control-plane", explain: "#/explain?from=cart.demo&to=payments.demo", edge: "#/edges/cart.demo/payments.demo", document: "#/documents/httproutes/demo/payments-canary" };
  const ready: Record<keyof typeof pages, string> = {
    map: ".node a", table: "tr[data-service]", service: ".chart canvas", workloads: "tr[data-workload]", events: ".events li",
    identities: "tr[data-anchor]", "control plane": "tr[data-sidecar]", explain: ".steps", edge: ".chart canvas", document: ".document",
  };

  for (const name of Object.keys(pages) as (keyof typeof pages)[]) {
    test.each(["light", "dark"] as const)(`the ${name}, %s`, async (theme) => {
      const { page } = await look(pages[name], { theme, reducedMotion: "reduce", bypassCSP: true });
      await page.locator(ready[name]).first().waitFor({ timeout: TRAFFIC_MS });
      expect(await violations(page)).toEqual([]);
    });

    test(`the ${name} on a phone, without scrolling sideways`, async () => {
      const { page } = await look(pages[name], { width: 375, height: 780 });
      await page.locator(ready[name]).first().waitFor({ timeout: TRAFFIC_MS });
      const [content, window_] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
      expect(content).toBeLessThanOrEqual(window_!);
    });
  }

  test("a table that a phone cuts, by a shadow that scrolling takes away", async () => {
    const { page } = await look("#/?view=table", { width: 375, height: 780 });
    const frame = page.getByRole("region", { name: "Services", exact: true });
    await frame.locator("tr[data-service]").first().waitFor({ timeout: TRAFFIC_MS });
    const [content, visible] = await frame.evaluate((it) => [it.scrollWidth, it.clientWidth]);
    expect(content, "it is cut").toBeGreaterThan(visible!);
    expect(await frame.evaluate((it) => getComputedStyle(it).backgroundAttachment)).toContain("local");
  });

  test("the skip link", async () => {
    const { page } = await look();
    await page.locator(".node a").first().waitFor();
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("Skip to content");
    await page.keyboard.press("Enter");
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("main");
  });
});

test("a control plane that is away is told, and its return too", async () => {
  const between = await relay(url);
  const { page } = await look("", {}, between.url);
  await page.locator(".connection.live").waitFor();
  await between.cut();
  await page.locator(".banner", { hasText: /Stale since \d\d:\d\d:\d\d/ }).waitFor({ timeout: 25_000 });
  expect(await page.locator(".node").count(), "what was known stays to be seen").toBeGreaterThan(0);
  await between.restore();
  await page.locator(".connection.live").waitFor({ timeout: 25_000 });
  expect(await page.locator(".banner").count()).toBe(0);
  await between.cut();
});

test("nothing is asked of anyone but the control plane", async () => {
  const { page } = await look();
  await page.locator(".node a").first().waitFor();
  const hosts = await page.evaluate(() => [...new Set(performance.getEntriesByType("resource").map((entry) => new URL(entry.name).origin))]);
  expect(hosts).toEqual([new URL(url).origin]);
});

/** Coloured points in the plot of one chart: the drawn line; axes, grid and labels are grey. */
async function inkOf(page: Page, index: number): Promise<number> {
  return page.evaluate((chart) => {
    const canvas = document.querySelectorAll<HTMLCanvasElement>(".chart canvas")[chart];
    const context = canvas?.getContext("2d");
    if (!canvas || !context || canvas.width === 0) return 0;
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    let points = 0;
    for (let at = 0; at < data.length; at += 4) {
      const [red, green, blue, alpha] = [data[at]!, data[at + 1]!, data[at + 2]!, data[at + 3]!];
      if (alpha > 200 && Math.max(red, green, blue) - Math.min(red, green, blue) > 60) points += 1;
    }
    return points;
  }, index);
}
