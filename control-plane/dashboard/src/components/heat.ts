// The heatmap's cells: how many requests took how long, by point of time and bucket of latency.
import type { Series } from "../api/types";

export interface Cell {
  point: number;
  /** Milliseconds. */
  low: number;
  high: number;
  count: number;
  /** 1 for few up to [`SHADES`] for the most. */
  shade: number;
}

export interface Heat {
  cells: Cell[];
  /** The ends of the vertical axis, milliseconds. */
  range: [number, number];
  /** The largest count of a cell. */
  most: number;
}

export const SHADES = 6;
/** Of the axis, where nothing was measured, milliseconds. */
const USUAL: [number, number] = [1, 100];
/** The first bucket begins at zero, where a logarithm cannot. */
const FIRST_SPAN = 2;

export function heatOf({ latency, latencyBoundsMs }: Pick<Series, "latency" | "latencyBoundsMs">): Heat {
  const most = Math.max(0, ...latency.flatMap((point) => point.map(([, count]) => count)));
  const cells = latency.flatMap((pairs, point) =>
    pairs.map(([bucket, count]): Cell => {
      const high = latencyBoundsMs[bucket] ?? latencyBoundsMs.at(-1)!;
      const low = bucket === 0 ? high / FIRST_SPAN : latencyBoundsMs[bucket - 1]!;
      return { point, low, high, count, shade: shadeOf(count, most) };
    }),
  );
  if (cells.length === 0) return { cells, range: USUAL, most };
  const low = Math.min(...cells.map((cell) => cell.low));
  const high = Math.max(...cells.map((cell) => cell.high));
  // A little room, and never so narrow that one bucket fills the picture.
  return { cells, range: [low / 1.2, Math.max(high * 1.2, low * 8)], most };
}

/** By logarithm, so that the few slow ones are seen beside the many fast ones. */
export function shadeOf(count: number, most: number): number {
  if (count <= 0) return 0;
  if (most <= 1) return SHADES;
  return 1 + Math.round(((SHADES - 1) * Math.log(count)) / Math.log(most));
}

/** Marks of a logarithmic axis: 1, 2, 5, 10, …; only powers of ten where these are too many. */
export function marks(low: number, high: number, most = 7): number[] {
  const found: number[] = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const digit of [1, 2, 5]) {
      const mark = Number((digit * 10 ** power).toPrecision(1));
      if (mark >= low && mark <= high) found.push(mark);
    }
  }
  return found.length <= most ? found : found.filter((mark) => Number.isInteger(Math.round(Math.log10(mark) * 1e6) / 1e6));
}
