// A request in words and figures.
import type { TapEvent } from "../../api/tap";
import type { Hops } from "../../api/types";

/** "503 breakers-open", "grpc-14", "cancelled". */
export function outcome(request: TapEvent): string {
  const { grpcStatus, status, reason, refusedBy, cancelled } = request;
  const code = grpcStatus !== undefined ? `grpc-${grpcStatus}` : (status?.toString() ?? "");
  const refused = reason && (refusedBy ? `${reason} (${refusedBy})` : reason);
  return [code, refused, cancelled && "cancelled"].filter((part) => part).join(" ") || "–";
}

export function isBad(request: TapEvent): boolean {
  return request.failed || request.reason !== undefined;
}

/** As the bar takes it: of one request, so it has no percentiles. */
export function hopsOf({ segments, durationMs }: TapEvent): Hops {
  const whole = segments.reduce((sum, { ms }) => sum + ms, 0) || 1;
  return {
    requests: 1,
    meanMs: durationMs,
    segments: segments.map(({ segment, ms }) => ({ segment, meanMs: ms, share: ms / whole, p50Ms: ms, p99Ms: ms })),
  };
}

const dayFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });

/** To the millisecond, in the reader's own zone. */
export function timeOfDay(timeMs: number): string {
  return dayFormat.format(timeMs);
}
