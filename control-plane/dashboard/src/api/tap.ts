// What `/v1/mesh/tap` tells: see its description in /openapi.json.

/** One request that has ended. */
export interface TapEvent {
  /** When it began, by the clock of the sidecar's host. */
  timeMs: number;
  /** The workload whose sidecar tells, and its namespace. */
  sidecar: string;
  namespace: string;
  direction: "inbound" | "outbound";
  from: string;
  to: string;
  /** Where a route chose another service. */
  backend?: string;
  /** Which served it. */
  workload?: string;
  /** Absent where no callee was reached. */
  mtls?: boolean;
  peerIdentity?: string;
  method: string;
  path: string;
  status?: number;
  grpcStatus?: number;
  /** Why a sidecar refused it, and which of both. */
  reason?: string;
  refusedBy?: string;
  cancelled?: boolean;
  failed: boolean;
  durationMs: number;
  segments: { segment: string; ms: number }[];
  attempts?: number;
  route?: string;
  rule?: string;
  headers?: { name: string; value: string }[];
}

/** Who tells, what is left out, and why nothing comes. */
export interface TapStatus {
  listening: number;
  waiting: number;
  refused: number;
  away: number;
  dropped: { limited: number; overflowed: number; unread: number };
  notes: string[];
}
