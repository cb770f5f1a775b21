// One chart of figures over time: drawn by uPlot, its values under the pointer in the legend, the same as a table below.
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { clock, exact } from "../format";
import { resolvedColour, useTheme } from "../theme";
import { isolated, tableRows } from "./figures";

export interface Line {
  label: string;
  values: (number | null)[];
  /** A colour variable of the style sheet. */
  colour: string;
  /** Tells lines apart without colour. */
  dash?: number[];
  fill?: boolean;
}

export interface ChartProps {
  title: string;
  timesMs: number[];
  lines: Line[];
  /** A value with its unit. */
  format: (value: number | null | undefined) => string;
  /** Ends of the vertical axis, where zero to a little over the most (and at least one) doesn't do. */
  range?: (least: number, most: number) => [number, number];
}

const HEIGHT = 190;
/** Seconds between the marks of the time axis. */
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
const SYNC = "service-charts";

export function Chart({ title, timesMs, lines, format, range }: ChartProps) {
  const frame = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [pointed, setPointed] = useState<number | null>(null);
  const [theme] = useTheme();
  const data: uPlot.AlignedData = [timesMs.map((time) => time / 1000), ...lines.map((line) => line.values)];
  const latest = useRef(data);
  latest.current = data;

  useEffect(() => {
    const element = frame.current;
    if (element === null) return;
    const muted = resolvedColour("--muted");
    const grid = { stroke: resolvedColour("--grid"), width: 1 };
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const made = new uPlot(
      {
        width: Math.max(element.clientWidth, 120),
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, points: { size: 6 }, sync: { key: SYNC }, drag: { x: false, y: false } },
        scales: { y: { range: range ? (_, least, most) => range(least ?? 0, most ?? 0) : (_, __, most) => [0, Math.max(most ?? 0, 1) * 1.12] } },
        axes: [
          {
            stroke: muted,
            font,
            grid: { show: false },
            ticks: { ...grid, size: 4 },
            size: 30,
            space: 64,
            incrs: TIME_STEPS,
            values: (_, seconds, __, ___, step) => seconds.map((second) => clock(second * 1000).slice(0, step < 60 ? 8 : 5)),
          },
          { stroke: muted, font, grid, ticks: { show: false }, size: 68, gap: 6, space: 38, values: (_, values) => values.map((value) => brief(format(value))) },
        ],
        series: [
          {},
          ...lines.map((line) => {
            const stroke = resolvedColour(line.colour);
            return {
              label: line.label,
              stroke,
              width: 1.75,
              ...(line.dash ? { dash: line.dash } : {}),
              ...(line.fill ? { fill: resolvedColour(`${line.colour}-soft`) } : {}),
              // A line needs two neighbours; what stands alone is drawn as a dot.
              points: { show: true, size: 4, fill: stroke, filter: (plot: uPlot, series: number) => isolated(plot.data[series] ?? []) },
              spanGaps: false,
            };
          }),
        ],
        hooks: { setCursor: [({ cursor }) => setPointed(cursor.idx ?? null)] },
      },
      latest.current,
      element,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: Math.max(element.clientWidth, 120), height: HEIGHT }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
    // Only what changes the drawing itself makes a new one; figures are set below.
  }, [theme, lines.length]);

  useEffect(() => plot.current?.setData(data), [timesMs]);

  const at = pointed !== null && pointed < timesMs.length ? pointed : lastMeasured(lines, timesMs.length);
  const time = timesMs[at];
  return (
    <figure class="chart">
      <figcaption>
        <h3>{title}</h3>
        <span class="note at">{time === undefined ? "" : clock(time)}</span>
        <ul class="legend">
          {lines.map((line) => (
            <li key={line.label}>
              <svg width="18" height="4" aria-hidden="true">
                <path d="M0 2H18" stroke={`var(${line.colour})`} stroke-width="2.5" stroke-dasharray={line.dash?.join(" ")} />
              </svg>
              {lines.length > 1 && <span class="note">{line.label}</span>}
              <span class="value">{format(line.values[at])}</span>
            </li>
          ))}
        </ul>
      </figcaption>
      <div ref={frame} class="plot" role="img" aria-label={inWords(title, lines, format)} />
      <details>
        <summary>{title} as a table</summary>
        <div class="table-frame" role="region" aria-label={`${title}, figures`} tabIndex={0}>
          <table>
            <thead>
              <tr>
                <th scope="col">Time</th>
                {lines.map((line) => (
                  <th scope="col" class="number" key={line.label}>
                    {line.label}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {tableRows(timesMs).map((index) => (
                <tr key={timesMs[index]}>
                  <th scope="row" title={exact(timesMs[index]!)}>
                    {clock(timesMs[index]!)}
                  </th>
                  {lines.map((line) => (
                    <td class="number" key={line.label}>
                      {format(line.values[index])}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </figure>
  );
}

/** Marks of an axis are round already: "20 rps", not "20.0 rps". */
function brief(label: string): string {
  return label.replace(/\.0 /, " ");
}

/** The newest index at which anything was measured. */
function lastMeasured(lines: Line[], length: number): number {
  for (let index = length - 1; index >= 0; index--) if (lines.some((line) => line.values[index] != null)) return index;
  return length - 1;
}

function inWords(title: string, lines: Line[], format: ChartProps["format"]): string {
  const parts = lines.map((line) => {
    const measured = line.values.filter((value): value is number => value !== null);
    if (measured.length === 0) return `${line.label}: nothing measured`;
    return `${line.label}: now ${format(measured.at(-1))}, least ${format(Math.min(...measured))}, most ${format(Math.max(...measured))}`;
  });
  return `Chart of ${title}. ${parts.join("; ")}.`;
}
