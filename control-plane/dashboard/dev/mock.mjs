// A mesh to develop the dashboard against: serves dist/ and a scripted order path whose payments-3 comes and goes.
// For development only; the product's tests run against a real mesh.
//   node dev/mock.mjs [--port 15080] [--empty] [--plaintext] [--faults]
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const option = (name) => process.argv.includes(`--${name}`);
const port = Number(process.argv[process.argv.indexOf("--port") + 1] || 0) || 15080;
const dist = fileURLToPath(new URL("../dist/", import.meta.url));
const startedMs = Date.now() - 4 * 60_000;
const PHASE_SECONDS = 15;

/** A number that wanders around 1 and is the same for the same second. */
const wander = (seconds, seed) => 1 + 0.12 * Math.sin(seconds / 5 + seed) + 0.06 * Math.sin(seconds / 1.7 + seed * 3);

/** payments-3 fails for 15 s (its breaker opens after 3), then is fine for 15 s. */
function phase(seconds) {
  const within = seconds % (2 * PHASE_SECONDS);
  const failing = within < PHASE_SECONDS;
  const breaker = failing && within >= 3 ? (within % 4 === 3 ? "half-open" : "open") : within === PHASE_SECONDS ? "half-open" : "closed";
  return { failing, breaker };
}

const figures = (seconds, seed, rps, successRate, p50, p99) => ({
  rps: rps * wander(seconds, seed),
  successRate,
  p50Ms: p50 * wander(seconds, seed + 1),
  p99Ms: p99 * wander(seconds, seed + 2),
});

const SERVICES = {
  traffic: { kind: "workload", instances: 1 },
  web: { instances: 2, rps: 40, p50: 14, p99: 62 },
  catalog: { instances: 2, rps: 40, p50: 2.1, p99: 9 },
  cart: { instances: 1, rps: 20, p50: 8, p99: 48 },
  payments: { instances: 4 },
  "payments-v1": { instances: 3 },
  "payments-v2": { instances: 1 },
};

function edges(seconds) {
  const { failing, breaker } = phase(seconds);
  const hurt = failing && breaker !== "open" ? 0.86 : failing ? 0.984 : 1;
  const edge = (from, to, values, more = {}) => ({
    from: `${from}.demo`, to: `${to}.demo`, backend: null, mtls: true, tlsVersion: "TLS 1.3", refusals: {}, ...values, ...more,
  });
  const plaintext = option("plaintext") ? { mtls: false, tlsVersion: null } : {};
  return [
    edge("traffic", "web", figures(seconds, 1, 40, failing ? 0.9962 : 1, 15, 66)),
    edge("web", "catalog", figures(seconds, 2, 40, 1, 2.4, 11), plaintext),
    edge("web", "cart", figures(seconds, 3, 20, failing ? 0.9921 : 1, 9, 52)),
    edge("cart", "payments", figures(seconds, 4, 18, hurt, 4.2, failing ? 240 : 18), {
      backend: "payments-v1.demo",
      refusals: breaker === "open" ? { "breaker-open": 0.3 } : {},
    }),
    edge("cart", "payments", figures(seconds, 5, 2, 1, 3.1, 12), { backend: "payments-v2.demo" }),
  ];
}

function services(seconds) {
  return Object.entries(SERVICES).map(([name, service]) => ({
    name: `${name}.demo`, namespace: "demo", kind: service.kind ?? "service", inMesh: true,
    instances: service.instances, ready: service.instances,
    ...(service.rps ? figures(seconds, name.length, service.rps, 1, service.p50, service.p99) : { rps: 0, successRate: null, p50Ms: null, p99Ms: null }),
  }));
}

/** Faults that are injected, with --faults. */
function faults() {
  if (!option("faults")) return [];
  return [{
    service: "catalog.demo", policy: "demo/catalog", name: "slow", untilMs: Date.now() + 8 * 60_000, delayMs: 200, delayPercent: 10, abortStatus: 503,
    abortPercent: 5, callers: ["web.demo"], matches: false,
  }];
}

/** What the policies of a service did in `minutes`: payments-v1 has all of them. */
function activity(short, minutes) {
  const many = (perMinute) => Math.round(perMinute * minutes);
  const usual = { seconds: minutes * 60, retryBudgetPercent: 20, hedgeBudgetPercent: null };
  if (short === "catalog" && option("faults")) return { ...usual, faultsDelayed: { slow: many(240) }, faultsAborted: { slow: many(120) } };
  if (!short.startsWith("payments")) return usual;
  const repeats = { retries: many(62), recovered: many(58), retriesOverBudget: many(1) };
  if (short === "payments") return { ...usual, ...repeats };
  if (short === "payments-v2") return { ...usual, mirrored: { answered: many(110), timeout: many(2) } };
  return {
    ...usual, ...repeats, hedgeBudgetPercent: 10, hedges: many(9), hedgesWon: many(4), panicPicks: many(2),
    fallbacksServed: { "breakers-open": many(3), "no-ready-endpoints": many(1) }, fallbacksFailed: { "breakers-open": 1 },
    rateAdmitted: { all: many(1080), expensive: many(40) }, rateLimited: { expensive: many(6) },
    limitedClients: [{ client: "spiffe://mesh.local/ns/demo/sa/cart", limited: many(6) }], shed: { low: many(2) },
    concurrency: [1, 2, 3].map((index) => ({ workload: `payments-${index}`, port: 8080, limit: 18 + index, inFlight: 2 + index, queued: index === 3 ? 2 : 0, minRttMs: 3.1 })),
  };
}

/** Some of the many values, as the control plane makes them from the schema. */
function policy(short, name) {
  const written = short === "payments-v1";
  const source = written ? "TrafficPolicy demo/payments-v1" : null;
  const field = (field, value, from, about) => ({ field, value, source: written && from ? source : "default", about });
  const unset = (section) => (written ? [] : [field(section, "none", false, "Off unless it is written.")]);
  return {
    service: name, source,
    fields: [
      ...unset("retry"), ...unset("hedge"), ...unset("fallback"), ...unset("rateLimits"), ...unset("concurrency"),
      field("circuitBreaker.consecutiveFailures", written ? "3" : "7", true, "Opens after so many failures in a row."),
      field("circuitBreaker.panicPercent", "50", false, "With more of the endpoints open than this, breakers are ignored."),
      ...(written
        ? [
            field("retry.attempts", "2", true, "Attempts after the first, 1 to 10."), field("hedge.after", "50ms", true, "How long to wait for the first."),
            field("fallback.response.status", "200", true, "To HTTP."), field("concurrency.adaptive", "true", true, "Found by the latency."),
            field("rateLimits", '[{"name":"all","total":{"requests":100,"per":"1s"}},{"name":"expensive","perClient":{"requests":1,"per":"1s"}}]', true, "How many requests a workload takes in a time."),
          ]
        : []),
      field("connections.maxRequests", "1024", false, "Requests under way."),
      field("timeouts.request", "none", false, "For the whole request, all attempts together."),
    ],
  };
}

const PAYMENTS_ROUTES = [
  {
    route: "demo/payments", rule: "refunds", conditions: ["path begins with /refunds"], effects: ["a copy of 10 % goes to payments-v2.demo:80"],
    backends: [{ service: "payments-v1.demo", port: 80, sharePercent: 100 }],
  },
  {
    route: "demo/payments", rule: "1", conditions: [], effects: [],
    backends: [{ service: "payments-v1.demo", port: 80, sharePercent: 90 }, { service: "payments-v2.demo", port: 80, sharePercent: 10 }],
  },
];

function events(seconds) {
  const list = [];
  const add = (at, kind, about, text) => list.push({ id: list.length + 1, timeMs: startedMs + at * 1000, kind, ...about, text });
  for (const name of ["web-1", "web-2", "catalog-1", "cart-1", "payments-3"]) {
    add(1, "workload-joined", { workload: name, service: `${name.split("-")[0]}.demo` }, `${name} joined the mesh with the identity spiffe://mesh.local/ns/demo/sa/${name.split("-")[0]}.`);
  }
  add(2, "document-applied", { service: "payments.demo" }, "HTTPRoute demo/payments was applied: 90 % to payments-v1, 10 % to payments-v2.");
  const payments = { service: "payments-v1.demo", workload: "payments-3" };
  for (let second = 3; second <= seconds; second++) {
    const [before, now] = [phase(second - 1).breaker, phase(second).breaker];
    if (now === before) continue;
    if (now === "open") add(second, "breaker-opened", payments, "cart stopped sending to payments-3 of payments-v1: 5 failures in a row.");
    if (now === "half-open") add(second, "breaker-half-opened", payments, "cart lets one request through to payments-3, to see whether it has recovered.");
    if (now === "closed") add(second, "breaker-closed", payments, "payments-3 of payments-v1 answers again; cart sends to it as before.");
  }
  return list.slice(-50).reverse();
}

function mesh() {
  const serverTimeMs = Date.now();
  const seconds = Math.floor((serverTimeMs - startedMs) / 1000);
  const empty = option("empty");
  return {
    serverTimeMs, startedMs, version: "0.1.0", trustDomain: "mesh.local", window: { seconds: 10 },
    services: empty ? [] : services(seconds), edges: empty ? [] : edges(seconds), events: empty ? [] : events(seconds),
    faults: empty ? [] : faults(),
  };
}

/** Figures over time of something that is `busy`, and fails where `failing` says so. */
function seriesOf(minutes, busy, isFailing) {
  const now = Math.floor((Date.now() - startedMs) / 1000);
  const step = minutes < 2 ? 1 : 10;
  const times = Array.from({ length: Math.floor((minutes * 60) / step) }, (_, index) => now - (minutes * 60 - index * step));
  const failing = times.map((second) => isFailing && phase(second + 3000).failing);
  // Nothing was measured before the mesh started.
  const series = (value) => times.map((second, index) => (second < 0 || busy === 0 ? null : value(second, index)));
  const bounds = Array.from({ length: 82 }, (_, bucket) => (bucket === 0 ? 64 : 2 ** (Math.floor((bucket - 1) / 4) + 4) * (5 + ((bucket - 1) % 4))) / 1000);
  const bucket = (ms) => bounds.findIndex((bound) => ms < bound);
  const spread = (second, bad) =>
    Object.entries([0.5, 0.7, 0.85, 1, 1.2, 1.5, 2, 3].reduce((counts, factor, index) => {
      const at = bucket(4 * factor * wander(second, 2) * (bad && index > 5 ? 20 : 1));
      counts[at] = (counts[at] ?? 0) + Math.max(1, Math.round((busy * step * [4, 12, 24, 28, 16, 9, 5, 2][index]) / 100));
      return counts;
    }, {})).map(([at, count]) => [Number(at), count]);
  const known = times.filter((second, index) => second >= 0 && index % (10 / step) === 0);
  return {
    stepSeconds: step, timesMs: times.map((second) => startedMs + second * 1000),
    rps: times.map((second) => (second < 0 ? 0 : busy * wander(second, 1))),
    successRate: series((_, index) => (failing[index] ? 0.955 : 1)),
    p50Ms: series((second) => 4 * wander(second, 2)),
    p90Ms: series((second, index) => (failing[index] ? 40 : 9) * wander(second, 3)),
    p99Ms: series((second, index) => (failing[index] ? 210 : 18) * wander(second, 4)),
    failed: times.map((_, index) => (failing[index] ? busy * 0.045 : 0)),
    refusals: isFailing ? { "breakers-open": times.map((_, index) => (failing[index] ? busy * 0.02 : 0)) } : {},
    refusalsByCallee: {},
    latency: times.map((second, index) => (second < 0 || busy === 0 ? [] : spread(second, failing[index]))),
    latencyBoundsMs: bounds,
    hops: {
      stepSeconds: 10, timesMs: known.map((second) => startedMs + second * 1000), requests: known.map(() => Math.round(busy * 10)),
      segments: Object.entries({ "client-sidecar": 0.2, network: 0.6, "server-sidecar": 0.15, application: 5 }).map(([segment, ms], seed) => ({
        segment, meanMs: known.map((second) => ms * wander(second, seed)),
      })),
    },
  };
}

const HOPS = {
  requests: 1200, meanMs: 6,
  segments: [["client-sidecar", 0.2], ["network", 0.6], ["server-sidecar", 0.2], ["application", 5]].map(([segment, meanMs]) => ({ segment, meanMs, share: meanMs / 6, p50Ms: meanMs, p99Ms: meanMs * 3 })),
  verdict: { text: "payments-3 is slow: its application takes 61 ms, that of the others 3.4 ms", segment: "application", workload: "payments-3", shortOfCpu: false },
  workloads: [["payments-3", 62], ["payments-2", 4.4], ["payments-1", 4.3]].map(([workload, meanMs]) => ({
    workload, requests: 400, meanMs, segments: [{ segment: "network", meanMs: 0.6, share: 0.6 / meanMs }, { segment: "application", meanMs: meanMs - 0.6, share: 1 - 0.6 / meanMs }],
  })),
};

function edgeDetail(from, to, minutes) {
  const rows = edges(Math.floor((Date.now() - startedMs) / 1000)).filter((row) => row.from === from && row.to === to);
  if (rows.length === 0) return null;
  const there = detail(to, minutes);
  const rps = rows.reduce((sum, row) => sum + row.rps, 0);
  return { ...rows[0], rps, backend: null, serverTimeMs: Date.now(), series: seriesOf(minutes, rps, to.startsWith("payments")), hops: HOPS, backends: rows, endpoints: there.endpoints, policies: there.policies };
}

function detail(name, minutes) {
  const now = Math.floor((Date.now() - startedMs) / 1000);
  const service = services(now).find((candidate) => candidate.name === name);
  if (service === undefined || option("empty")) return null;
  const short = name.split(".")[0];
  const rows = edges(now);
  const callers = rows.filter((row) => row.to === name || row.backend === name);
  const busy = service.rps || callers.reduce((total, row) => total + row.rps, 0);
  const { breaker } = phase(now);
  const endpoint = (workload, seed) => {
    const bad = workload === "payments-3";
    return {
      uid: `${workload}-6f2c9e`, workload, address: `127.0.0.1:${41000 + seed}`, ready: true, reason: null,
      spiffeId: `spiffe://mesh.local/ns/demo/sa/${short}`, zone: seed % 2 ? "a" : "b", weight: 100,
      ...figures(now, seed, bad && breaker === "open" ? 0 : busy / service.instances, bad && phase(now).failing ? 0.41 : 1, bad ? 61 : 3.4, bad ? 240 : 14),
      breakers: [...new Set(callers.map((row) => row.from))].map((from) => ({
        from, workload: `${from.split(".")[0]}-1`, service: short === "payments" ? "payments-v1.demo" : name, state: bad ? breaker : "closed", inFlight: bad ? 0 : 1, share: bad && breaker === "open" ? 0 : 1 / service.instances, openMs: bad && breaker === "open" ? 1850 : 0, latencyMs: bad ? 182.5 : 3.2,
        opened: bad ? 4 : 0, openedReason: bad ? "5 failures in a row" : "",
      })),
    };
  };
  return {
    ...service, rps: busy, ...(service.rps ? {} : { successRate: callers[0]?.successRate ?? null, p50Ms: callers[0]?.p50Ms ?? null, p99Ms: callers[0]?.p99Ms ?? null }),
    series: seriesOf(minutes, busy, short.startsWith("payments")), hops: HOPS, edgeHops: callers.map((row) => ({ ...HOPS, from: row.from, to: row.to, backend: row.backend })),
    endpoints: Array.from({ length: service.instances }, (_, index) =>
      endpoint(short === "payments-v2" ? `payments-v2-${index + 1}` : short === "payments-v1" ? `payments-${index + 1}` : short === "payments" && index === 3 ? "payments-v2-1" : `${short}-${index + 1}`, index + 1)),
    activity: activity(short, minutes), policy: service.kind === "workload" ? null : policy(short, name), routes: short === "payments" ? PAYMENTS_ROUTES : [],
    callers: callers.map((row) => (row.to === "payments.demo" ? { ...row, repeats: { retries: 312, recovered: 290, hedges: 44, hedgesWon: 20 } } : row)), callees: rows.filter((row) => row.from === name),
    policies: short === "payments" ? [{ kind: "HTTPRoute", namespace: "demo", name: "payments" }] : short === "payments-v1" ? [{ kind: "TrafficPolicy", namespace: "demo", name: "payments-v1" }] : [],
    backends: short === "payments" ? [
      { service: "payments-v1.demo", weightsPercent: [90], sharePercent: 89.6 }, { service: "payments-v2.demo", weightsPercent: [10], sharePercent: 10.4 },
    ] : [],
  };
}

function workloads() {
  if (option("empty")) return [];
  const names = ["traffic", "web-1", "web-2", "catalog-1", "catalog-2", "cart-1", "payments-1", "payments-2", "payments-3", "payments-v2-1"];
  return names.map((workload, index) => {
    const account = workload.replace(/(-v2)?(-\d)?$/, "");
    return {
      uid: `${workload}-6f2c9e`, workload, service: `${account}.demo`, namespace: "demo", spiffeId: `spiffe://mesh.local/ns/demo/sa/${account}`,
      address: `127.0.0.1:${41000 + index}`, version: "0.1.0", connected: workload !== "catalog-2", connectedMs: startedMs + 1000, ready: true, reason: null,
      leaseEndsMs: workload === "catalog-2" ? startedMs + 90_000 : null, waitingSinceMs: workload === "web-2" ? startedMs : null,
      clockSkewMs: [3, -12, 45_000, null][index % 4], certificateNotBeforeMs: startedMs - 120_000 - index * 2_800_000,
      certificateNotAfterMs: startedMs + 86_400_000 - index * 2_800_000 - (workload === "payments-1" ? 62_000_000 : 0), certificatesRenewed: index % 2, subscriptions: index % 3,
      refusedUpdates: workload === "cart-1" ? [{ ...REFUSED, uid: "cart-1-6f2c9e" }] : [],
    };
  });
}

const REFUSED = { service: "payments.demo", kind: "config", reason: "route demo/payments: regular expression is too large", timeMs: Date.now() };

function controlPlane() {
  const all = workloads();
  return {
    version: "0.1.0", serverTimeMs: Date.now(), startedMs, trustDomain: "mesh.local", workloads: all.length,
    connected: all.filter(({ connected }) => connected).length, storeRevision: 42, compileMs: 1.25, leafTtlSeconds: 86_400,
    authorityNotAfterMs: startedMs + 20 * 86_400_000,
    trustAnchors: [{ fingerprint: "9f2c41d07be85a36".repeat(4), notAfterMs: startedMs + 20 * 86_400_000 }, { fingerprint: "41d07be85a369f2c".repeat(4), notAfterMs: startedMs + 3650 * 86_400_000 }].slice(0, option("plaintext") ? 2 : 1),
    compileFaults: option("empty") ? [] : ["Service demo/cart: spec.ports[0].targetPort: no workload has a port named \"web\""],
    refusedUpdates: all.flatMap(({ refusedUpdates }) => refusedUpdates),
  };
}

/** One document that can be edited: its canary's weight, as a text that is compared line by line in place. */
const canary = { version: 12, weights: [90, 10] };

function route() {
  const backend = (name, weight) => ({ name, port: 80, weight });
  return {
    apiVersion: "gateway.networking.k8s.io/v1", kind: "HTTPRoute", metadata: { creationTimestamp: "2026-01-01T00:00:00Z", generation: 1, name: "payments", namespace: "demo", resourceVersion: String(canary.version), uid: "1" },
    spec: { parentRefs: [{ group: "", kind: "Service", name: "payments" }], rules: [{ backendRefs: canary.weights.map((weight, index) => backend(`payments-v${index + 1}`, weight)) }] }, status: { parents: [] },
  };
}

/** Takes weights only. "nowhere" is a service that there is not; every other change is a new document; `plt_viewer` may not. */
function applied(text, query, token) {
  const problem = (status, reason, title, detail, faults) => [status, { type: `urn:pillion:problem:${reason}`, title, status, detail, faults }];
  if (!token.startsWith("plt_")) return problem(401, "token-malformed", "A valid token is needed", "the token is malformed: it must begin with plt_");
  if (token === "plt_viewer") return problem(403, "token-lacks-role", "The token does not allow this", "the token has the role viewer, and operator is needed");
  const place = { document: "HTTPRoute demo/payments", index: 0 };
  const lines = text.split("\n");
  const faults = lines.flatMap((line, index) => (line.includes("nowhere") ? [{ ...place, field: "spec.rules[0].backendRefs[0].name", message: 'there is no Service "nowhere" in namespace "demo"', line: index + 1, column: 13 }] : /weight: -/.test(line) ? [{ ...place, field: "spec.rules[0].backendRefs[0].weight", message: "must be between 0 and 1000000, is -1", line: index + 1, column: 15 }] : []));
  if (faults.length > 0) return problem(422, "invalid", "The document is not valid", `${faults.length} faults; nothing was changed`, faults);
  const weights = lines.flatMap((line) => /weight: (\d+)/.exec(line)?.slice(1).map(Number) ?? []);
  const known = text.includes("name: payments\n") && weights.length === 2;
  const [was, version] = [canary.weights, known ? String(canary.version) : ""];
  const same = known && weights.join() === was.join();
  if (query.has("versions") && query.get("versions") !== (version || "0")) return problem(409, "conflict", "The document is not at the expected version", `HTTPRoute demo/payments is at resourceVersion ${version}, not at ${query.get("versions")} as expected; read it again and repeat the change`);
  const dryRun = query.has("dryRun");
  const change = (index) => (weights[index] === was[index] ? `       weight: ${was[index]}\n` : `-      weight: ${was[index]}\n+      weight: ${weights[index]}\n`);
  const diff = same ? "" : known ? `@@ -12,7 +12,7 @@\n     - name: payments-v1\n       port: 80\n${change(0)}     - name: payments-v2\n       port: 80\n${change(1)}` : `@@ -0,0 +1,${lines.length} @@\n${lines.map((line) => `+${line}\n`).join("")}`;
  if (!dryRun && known && !same) Object.assign(canary, { weights, version: canary.version + 1 });
  return [200, { dryRun, warnings: [], results: [{ kind: "HTTPRoute", namespace: "demo", name: "payments", outcome: same ? "unchanged" : known ? "configured" : "created", resourceVersion: known ? String(canary.version) : "", ...(dryRun && { diff }) }] }];
}

const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

const server = createServer((request, response) => {
  const url = new URL(request.url ?? "/", "http://localhost");
  const json = (status, body, type = "application/json") => response.writeHead(status, { "content-type": type }).end(JSON.stringify(body));
  const problem = (status, title, text) => json(status, { title, status, detail: text }, "application/problem+json");
  const service = /^\/v1\/mesh\/services\/([^/]+)\/([^/]+)$/.exec(url.pathname);
  const minutes = (Number(url.searchParams.get("seconds")) || 300) / 60;
  const edge = /^\/v1\/mesh\/edges\/([^/]+)\/([^/]+)$/.exec(url.pathname);
  if (edge) {
    const found = edgeDetail(edge[1], edge[2], minutes);
    return found ? json(200, found) : problem(404, "Not found", "Nothing goes that way.");
  }
  if (url.pathname === "/v1/namespaces/demo/httproutes/payments") return json(200, route());
  if (url.pathname === "/v1/apply") {
    let text = "";
    request.setEncoding("utf8").on("data", (part) => (text += part)).on("end", () => json(...applied(text, url.searchParams, (request.headers.authorization ?? "").replace("Bearer ", ""))));
    return undefined;
  }
  if (url.pathname === "/v1/mesh") return json(200, mesh());
  if (url.pathname === "/v1/mesh/workloads") return json(200, workloads());
  if (url.pathname === "/v1/mesh/control-plane") return json(200, controlPlane());
  if (service) {
    const found = detail(`${service[2]}.${service[1]}`, minutes);
    return found ? json(200, found) : problem(404, "Not found", `The mesh knows no ${service[2]}.${service[1]}.`);
  }
  if (url.pathname === "/v1/mesh/events") {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    const send = () => response.write(`event: mesh\ndata: ${JSON.stringify(mesh())}\n\n`);
    send();
    const timer = setInterval(send, 1000);
    request.on("close", () => clearInterval(timer));
    return undefined;
  }
  const file = join(dist, normalize(url.pathname === "/" ? "/index.html" : url.pathname));
  if (!file.startsWith(dist) || !existsSync(file) || !statSync(file).isFile()) return problem(404, "Not found", `Nothing is at ${url.pathname}.`);
  response.writeHead(200, {
    "content-type": TYPES[extname(file)] ?? "application/octet-stream",
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'",
  });
  return createReadStream(file).pipe(response);
});

server.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
