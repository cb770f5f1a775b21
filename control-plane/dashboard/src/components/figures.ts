// Choosing points of a series: which to list, which to draw as dots.

/** Rows of the table beneath a chart: enough to follow it, few enough to hear. */
const TABLE_ROWS = 30;

/** Indices of values between two gaps. */
export function isolated(values: ArrayLike<number | null | undefined>): number[] {
  return Array.from(values, (_, index) => index).filter(
    (index) => values[index] != null && values[index - 1] == null && values[index + 1] == null,
  );
}

/** Indices for the table: newest first, evenly thinned. */
export function tableRows(times: readonly number[]): number[] {
  const step = Math.max(1, Math.ceil(times.length / TABLE_ROWS));
  const rows: number[] = [];
  for (let index = times.length - 1; index >= 0; index -= step) rows.push(index);
  return rows;
}
