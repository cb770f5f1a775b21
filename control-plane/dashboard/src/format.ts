// Numbers and times as people read them: few digits, always a unit, and a dash where nothing was measured.

/** Shown where there is no figure. */
export const NOTHING = "–";

/** Three significant digits at most, without an exponent: 0.42, 4.2, 42, 420, 4.2k. */
function shortNumber(value: number): string {
  if (value >= 999_500) return `${trimmed(value / 1_000_000)}M`;
  if (value >= 9_995) return `${trimmed(value / 1_000)}k`;
  if (value >= 99.95) return Math.round(value).toString();
  return trimmed(value);
}

function trimmed(value: number): string {
  if (value >= 99.95) return Math.round(value).toString();
  const digits = value >= 9.995 ? 1 : 2;
  const text = value.toFixed(digits);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** How many: all digits while there are few. */
export function quantity(many: number): string {
  return many < 10_000 ? Math.round(many).toString() : shortNumber(many);
}

/** Requests per second. Something rarer than one in two hundred seconds is still not nothing. */
export function rate(rps: number | null | undefined): string {
  if (rps == null || !Number.isFinite(rps)) return `${NOTHING} rps`;
  if (rps > 0 && rps < 0.005) return "<0.01 rps";
  // One decimal is enough to see it change, and few enough to read at a glance.
  if (rps >= 0.95 && rps < 99.95) return `${rps.toFixed(1)} rps`;
  return `${shortNumber(rps)} rps`;
}

/** A share from 0 to 1 as percent. Never rounds a failure away: 100 % means that all succeeded. */
export function percent(share: number | null | undefined): string {
  if (share == null || !Number.isFinite(share)) return `${NOTHING} %`;
  if (share >= 1) return "100 %";
  if (share <= 0) return "0 %";
  if (share > 0.9999) return ">99.99 %";
  const value = share * 100;
  if (value < 0.1) return "<0.1 %";
  const digits = value >= 99.9 ? 2 : 1;
  const step = 10 ** digits;
  return `${(Math.floor(value * step + 1e-9) / step).toFixed(digits)} %`;
}

/** A duration given in milliseconds: µs, ms or s. */
export function latency(milliseconds: number | null | undefined): string {
  if (milliseconds == null || !Number.isFinite(milliseconds)) return `${NOTHING} ms`;
  if (milliseconds === 0) return "0 ms";
  if (milliseconds < 1) return `${Math.round(milliseconds * 1000)} µs`;
  if (milliseconds >= 999.5) return `${trimmed(milliseconds / 1000)} s`;
  return `${milliseconds >= 9.95 ? Math.round(milliseconds) : milliseconds.toFixed(1)} ms`;
}

/** A longer span in its largest one or two units: "45 s", "12 min", "3 h 5 min", "2 d 4 h". */
export function span(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return minutes < 5 && seconds % 60 > 0 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 > 0 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 > 0 ? `${days} d ${hours % 24} h` : `${days} d`;
}

/** A moment as seen from now: "just now", "12 s ago", "in 23 h". */
export function relative(timeMs: number, nowMs: number): string {
  const ago = nowMs - timeMs;
  if (Math.abs(ago) < 1500) return "just now";
  return ago > 0 ? `${span(ago)} ago` : `in ${span(-ago)}`;
}

const exactFormat = new Intl.DateTimeFormat("en-GB", {
  year: "numeric",
  month: "short",
  day: "2-digit",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short",
});

/** Date, time and zone, to the second, in the reader's own zone. */
export function exact(timeMs: number): string {
  return exactFormat.format(timeMs);
}

const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Time of day, to the second. */
export function clock(timeMs: number): string {
  return clockFormat.format(timeMs);
}

/** "1 instance", "2 instances". */
export function count(quantity: number, one: string, many = `${one}s`): string {
  return `${quantity} ${quantity === 1 ? one : many}`;
}

/** "<name>.<namespace>" taken apart; a name may contain no dot, a namespace neither. */
export function serviceName(full: string): { name: string; namespace: string } {
  const dot = full.lastIndexOf(".");
  return dot < 0 ? { name: full, namespace: "" } : { name: full.slice(0, dot), namespace: full.slice(dot + 1) };
}

/** "of 90 % by weight", and where rules differ each of theirs. */
export function byWeight(weights: readonly number[]): string {
  if (weights.length === 0) return "in no rule";
  const all = weights.map((weight) => `${Number(weight.toFixed(1))} %`);
  return all.length === 1 ? `of ${all[0]} by weight` : `of ${all.slice(0, -1).join(", ")} or ${all.at(-1)} by weight, by rule`;
}
