// The line of recent values as an SVG's points.

/** Fewer are a dash that means nothing. */
export const LEAST = 5;
/** Half a line's width, so that none of it is cut off; below it is the base line. */
const INSET = 1.5;

/** Over the whole width, however few there are: a page that has just been opened knows only the last seconds. */
export function sparkline(values: readonly number[], width: number, height: number): string {
  if (values.length < LEAST) return "";
  const most = Math.max(...values, 1e-9);
  const step = width / (values.length - 1);
  return values
    .map((value, index) => `${(index * step).toFixed(1)},${(height - INSET - (value / most) * (height - 2 * INSET)).toFixed(1)}`)
    .join(" ");
}
