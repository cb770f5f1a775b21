// What the control plane answers under /v1/mesh, as TypeScript types. Times are milliseconds since the Unix epoch.

/** Golden figures over the document's window. A share is from 0 to 1; `null` means that nothing was measured. */
export interface Figures {
  /** Requests per second. */
  rps: number;
  successRate: number | null;
  /** Milliseconds. */
  p50Ms: number | null;
  p99Ms: number | null;
}

export interface MeshService extends Figures {
  /** "<name>.<namespace>". */
  name: string;
  namespace: string;
  /** A lone workload stands for itself where no Service selects it; an unknown one is only seen in traffic. */
  kind: "service" | "workload" | "unknown";
  instances: number;
  ready: number;
  inMesh: boolean;
  /** Refusals per second by its own sidecars, by reason. */
  refusals?: Record<string, number>;
}

/** Requests from one source to one service, as served by one backend. */
export interface MeshEdge extends Figures {
  from: string;
  to: string;
  /** The service that served, where a route chose another than the one called; otherwise empty or absent. */
  backend?: string | null;
  /** Whether all that was sent went over mutual TLS; null where nothing was sent. */
  mtls: boolean | null;
  /** "TLS 1.3". */
  tlsVersion?: string | null;
  /** Refusals per second made by the caller's sidecars, by reason. */
  refusals?: Record<string, number>;
  /** The same by the callee's. */
  refusalsByCallee?: Record<string, number>;
  /** Over the document's window, or the span that the page asked for; absent where there were none. */
  repeats?: Repeats;
}

/** Counts of retries and hedges; what is zero is absent. */
export interface Repeats {
  /** Attempts beyond the first of a request, and the requests that ended well for them. */
  retries?: number;
  recovered?: number;
  retriesOverBudget?: number;
  /** Requests sent to a second endpoint as well, and those that it answered first. */
  hedges?: number;
  hedgesWon?: number;
  hedgesOverBudget?: number;
}

type Named = Record<string, number>;

/** What the policies of a service did over `seconds`; what did not happen is absent. */
export interface Activity extends Repeats {
  seconds: number;
  retryBudgetPercent: number | null;
  hedgeBudgetPercent: number | null;
  /** By the reason for which a fallback was needed. */
  fallbacksServed?: Named;
  fallbacksFailed?: Named;
  /** Copies of others' requests, by what became of them. */
  mirrored?: Named;
  panicPicks?: number;
  breakersSpared?: number;
  /** By the fault's name. */
  faultsDelayed?: Named;
  faultsAborted?: Named;
  /** By the limit's name. */
  rateAdmitted?: Named;
  rateLimited?: Named;
  /** Those limited most, the most first. */
  limitedClients?: { client: string; limited: number }[];
  /** By priority. */
  shed?: Named;
  /** How the limits of its workloads stand now. */
  concurrency?: Concurrency[];
}

export interface Concurrency {
  workload: string;
  port: number;
  limit: number;
  inFlight: number;
  queued: number;
  minRttMs: number | null;
}

export interface MeshEvent {
  id: number;
  timeMs: number;
  /** "breaker-opened", "workload-joined", … */
  kind: string;
  service?: string | null;
  workload?: string | null;
  /** Plain words. */
  text: string;
}

/** GET /v1/mesh, and the data of each server-sent event `mesh`. */
export interface Mesh {
  serverTimeMs: number;
  /** When the control plane started; event ids are counted from then. */
  startedMs: number;
  version: string;
  trustDomain: string;
  window: { seconds: number };
  services: MeshService[];
  edges: MeshEdge[];
  events: MeshEvent[];
  /** Faults injected on purpose that are active now. */
  faults?: Fault[];
}

/** A fault that a policy injects now, until it expires. */
export interface Fault {
  /** "<name>.<namespace>" of the service whose callers see it. */
  service: string;
  /** "<namespace>/<TrafficPolicy name>". */
  policy: string;
  name: string;
  untilMs: number;
  /** What requests wait for; 0: nothing. */
  delayMs: number;
  delayPercent: number;
  /** What requests are answered with; 0: nothing. */
  abortStatus: number;
  abortPercent: number;
  /** "<service>.<namespace>" or "*.<namespace>"; none: everybody. */
  callers: string[];
  /** Whether it is only for some of their requests. */
  matches: boolean;
}

export type BreakerState = "closed" | "open" | "half-open";

/** How one caller's sidecars see an endpoint. */
export interface Breaker {
  from: string;
  /** The caller's workload. */
  workload: string;
  /** By which service it calls the endpoint. */
  service: string;
  state: BreakerState;
  inFlight: number;
  /** Of the caller's requests to the service, what the balancer means the endpoint to have: 0 to 1. */
  share: number;
  /** The balancer's estimate; zero before there is one. */
  latencyMs: number;
  /** Openings since the caller's sidecar started. */
  opened: number;
  openedReason?: string | null;
  /** How long it stays open still; zero where it is not. */
  openMs: number;
}

export interface Endpoint extends Figures {
  uid: string;
  workload: string;
  address: string;
  ready: boolean;
  /** Why it isn't ready, for people. */
  reason?: string | null;
  spiffeId: string;
  zone?: string | null;
  /** Its share beside the others', a percentage of the usual one. */
  weight: number;
  /** As its own sidecar sees it: what lies before that is not in it. */
  hops?: Hops | null;
  breakers: Breaker[];
}

/** One figure per time; all arrays have the same length. */
export interface Series {
  stepSeconds: number;
  timesMs: number[];
  rps: number[];
  successRate: (number | null)[];
  p50Ms: (number | null)[];
  p90Ms: (number | null)[];
  p99Ms: (number | null)[];
  /** Requests per second that failed for the server's or the mesh's sake. */
  failed: number[];
  /** Refusals by sidecars per second, by reason. */
  refusals: Record<string, number[]>;
  /** Of edges: those by the callee's sidecar, also of attempts after which another was made. */
  refusalsByCallee: Record<string, number[]>;
  /** How many requests took how long: by point, pairs of a bucket and its count. */
  latency: [number, number][][];
  /** The upper end of each bucket, milliseconds. */
  latencyBoundsMs: number[];
  hops: HopSeries;
}

/** Where requests' time went over time; points without any are left out. */
export interface HopSeries {
  stepSeconds: number;
  timesMs: number[];
  requests: number[];
  /** In the order of the way. */
  segments: { segment: string; meanMs: number[] }[];
}

/** GET /v1/mesh/edges/{from}/{to}. */
export interface EdgeDetail extends MeshEdge {
  serverTimeMs: number;
  series: Series;
  hops: Hops | null;
  /** By the service that served. */
  backends: MeshEdge[];
  endpoints: Endpoint[];
  policies: PolicyReference[];
}

export interface PolicyReference {
  kind: string;
  namespace: string;
  name: string;
}

/** A backend's weight as configured and its share of the requests as measured, both in percent. */
export interface BackendShare {
  service: string;
  /** One for each rule that names it, without repetition; none: no rule does. */
  weightsPercent: number[];
  sharePercent: number | null;
}

/** GET /v1/mesh/services/{namespace}/{name}. */
export interface ServiceDetail extends MeshService {
  series: Series;
  endpoints: Endpoint[];
  callers: MeshEdge[];
  callees: MeshEdge[];
  /** Of all requests to it; `null` where their time was not split. */
  hops?: Hops | null;
  edgeHops?: EdgeHops[];
  policies: PolicyReference[];
  backends: BackendShare[];
  activity: Activity;
  /** Every value that holds for calls of it; `null` for what is no service. */
  policy: Policy | null;
  routes: RouteRule[];
}

/** Every value of a service's policy, and where each is from. */
export interface Policy {
  service: string;
  /** "TrafficPolicy <namespace>/<name>"; `null`: all defaults. */
  source: string | null;
  fields: PolicyField[];
}

export interface PolicyField {
  /** "circuitBreaker.openTime.base". */
  field: string;
  value: string;
  /** It is a list or an object, in JSON. */
  structured?: boolean;
  /** "TrafficPolicy <namespace>/<name>", or "default". */
  source: string;
  about: string;
}

/** One rule, with a match of it, in the order in which sidecars try them. */
export interface RouteRule {
  /** "<namespace>/<name>" of the route. */
  route: string;
  rule: string;
  /** In plain words; none: any request. */
  conditions: string[];
  effects: string[];
  backends: { service: string; port: number; sharePercent: number }[];
}

/** What POST /v1/explain answers. */
export interface Explanation {
  request: { method: string; path: string; headers: { name: string; value: string }[] };
  source: { name: string; workloads: { workload: string; connected: boolean }[] };
  target: { meaning: string; service: string; port: number; targetPort: number; protocol: string };
  rules: { route: string; rule: string; conditions: string[]; taken: boolean; why: string }[];
  decision: { outcome: string; text: string; effects: string[] };
  backends: ExplainedBackend[];
  policies: Policy[];
  authorization: string;
  verdict: { outcome: string; reasons: string[]; text: string; caveats: Caveat[] };
  notes: string[];
}

export interface Caveat {
  reason: string;
  percent: number | null;
  text: string;
}

export interface ExplainedBackend {
  service: string;
  port: number;
  weight: number;
  sharePercent: number;
  outcome: string;
  text: string;
  effects: string[];
  endpoints: {
    uid: string;
    workload: string;
    address: string;
    zone: string;
    weight: number;
    ready: boolean;
    reason: string;
    seenBy: { workload: string; breaker: BreakerState; share: number; inFlight: number; latencyMs: number; openedReason: string }[];
  }[];
}

export interface RefusedUpdate {
  /** Whose sidecar refused it. */
  uid: string;
  timeMs?: number;
  service: string;
  kind: string;
  reason: string;
}

/** One row of GET /v1/mesh/workloads. */
export interface Workload {
  uid: string;
  workload: string;
  service?: string | null;
  namespace: string;
  spiffeId: string;
  address: string;
  version: string;
  connected: boolean;
  /** When it connected, or when the connection was lost. */
  connectedMs?: number | null;
  ready: boolean;
  reason?: string | null;
  /** When its lease ends unless it comes back; `null` while it is connected. */
  leaseEndsMs?: number | null;
  /** Since when its answer to an update is waited for; `null`: for none. */
  waitingSinceMs?: number | null;
  certificateNotBeforeMs?: number | null;
  certificateNotAfterMs?: number | null;
  /** The control plane's clock minus its host's. */
  clockSkewMs?: number | null;
  certificatesRenewed: number;
  subscriptions: number;
  refusedUpdates: RefusedUpdate[];
}

/** GET /v1/mesh/control-plane. */
export interface ControlPlane {
  version: string;
  serverTimeMs: number;
  startedMs: number;
  trustDomain: string;
  workloads: number;
  connected: number;
  storeRevision: number;
  compileMs: number;
  /** The first end of a certificate of the authority's chain: nothing that it signs outlives it. */
  authorityNotAfterMs: number;
  trustAnchors: TrustAnchor[];
  leafTtlSeconds: number;
  compileFaults: string[];
  refusedUpdates: RefusedUpdate[];
}

export interface TrustAnchor {
  /** SHA-256, hexadecimal. */
  fingerprint: string;
  notAfterMs: number;
}

/** Where requests' time went, within the last minute. */
export interface Hops {
  requests: number;
  /** Of the whole request. */
  meanMs: number;
  /** In the order of the way; those that had any. */
  segments: HopSegment[];
  /** What stands out; `null` where it is not of whole ways. */
  verdict?: Verdict | null;
  /** By the workload that served, the slowest first; absent where that is not known. */
  workloads?: WorkloadHops[];
}

/** Is it the application, the network or the mesh? `pillion stat --hops` says the same. */
export interface Verdict {
  text: string;
  /** The segment that it is about; `null`: none stands out. */
  segment: string | null;
  /** The workload that is much slower than the others; `null`: none is. */
  workload: string | null;
  shortOfCpu: boolean;
}

export interface WorkloadHops {
  workload: string;
  requests: number;
  meanMs: number;
  segments: Pick<HopSegment, "segment" | "meanMs" | "share">[];
}

export interface HopSegment {
  /** "caller", "client-sidecar", "retries", "network", "server-sidecar", "application", "application-body" or "upstream". */
  segment: string;
  meanMs: number;
  /** Of the whole, from 0 to 1. */
  share: number;
  p50Ms: number;
  p99Ms: number;
}

export interface EdgeHops extends Hops {
  from: string;
  to: string;
  backend?: string | null;
}
