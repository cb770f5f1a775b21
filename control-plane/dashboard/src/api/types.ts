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
}

/** Requests from one source to one service, as served by one backend. */
export interface MeshEdge extends Figures {
  from: string;
  to: string;
  /** The service that served, where a route chose another than the one called; otherwise empty or absent. */
  backend?: string | null;
  mtls: boolean;
  /** "TLS 1.3". */
  tlsVersion?: string | null;
  /** Refusals per second made by sidecars, by reason. */
  refusals?: Record<string, number>;
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
  /** The balancer's estimate; zero before there is one. */
  latencyMs: number;
  /** Openings since the caller's sidecar started. */
  opened: number;
  openedReason?: string | null;
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
}

export interface PolicyReference {
  kind: string;
  namespace: string;
  name: string;
}

/** A backend's weight as configured and its share of the requests as measured, both in percent. */
export interface BackendShare {
  service: string;
  weightPercent: number | null;
  sharePercent: number | null;
}

/** GET /v1/mesh/services/{namespace}/{name}. */
export interface ServiceDetail extends MeshService {
  series: Series;
  endpoints: Endpoint[];
  callers: MeshEdge[];
  callees: MeshEdge[];
  policies: PolicyReference[];
  backends: BackendShare[];
}

export interface RefusedUpdate {
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
  certificateNotAfterMs?: number | null;
  certificatesRenewed: number;
  subscriptions: number;
  refusedUpdates: RefusedUpdate[];
}
