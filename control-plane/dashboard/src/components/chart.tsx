// Figures over time as lines.
import { useRef } from "preact/hooks";
import type uPlot from "uplot";
import { isolated } from "./figures";
import { Picture } from "./picture";
import { type TimeFrame, paint, usePlot } from "./plot";

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
  frame: TimeFrame;
  timesMs: number[];
  stepSeconds: number;
  lines: Line[];
  /** A value with its unit. */
  format: (value: number | null | undefined) => string;
  /** Ends of the vertical axis, where zero to a little over the most (and at least one) doesn't do. */
  range?: (least: number, most: number) => [number, number];
}

export function Chart({ title, frame, timesMs, stepSeconds, lines, format, range }: ChartProps) {
  const element = useRef<HTMLDivElement>(null);
  const series = lines.map((line): uPlot.Series => {
    // Resolved where the plot is made: the theme is another one then.
    const stroke = () => paint(line.colour);
    return {
      label: line.label,
      stroke,
      width: 1.75,
      ...(line.dash ? { dash: line.dash } : {}),
      ...(line.fill ? { fill: () => paint(`${line.colour}-soft`) } : {}),
      // A line needs two neighbours; what stands alone is drawn as a dot.
      points: { show: true, size: 4, fill: stroke, filter: (plot: uPlot, series: number) => isolated(plot.data[series] ?? []) },
      spanGaps: false,
    };
  });
  const pointed = usePlot(element, {
    frame,
    timesMs: middles(timesMs, stepSeconds),
    values: lines.map((line) => line.values),
    series,
    y: { range: range ? (_, least, most) => range(least ?? 0, most ?? 0) : (_, __, most) => [0, Math.max(most ?? 0, 1) * 1.12] },
    yAxis: { values: (_, values) => values.map((value) => brief(format(value))) },
    shape: lines.length,
  });
  const at = pointed ?? lastMeasured(lines, timesMs.length);
  return (
    <Picture
      title={title}
      words={inWords(title, lines, format)}
      plot={element}
      timesMs={timesMs}
      at={at}
      legend={lines.map((line) => (
        <li key={line.label}>
          <svg width="18" height="4" aria-hidden="true">
            <path d="M0 2H18" stroke={`var(${line.colour})`} stroke-width="2.5" stroke-dasharray={line.dash?.join(" ")} />
          </svg>
          {lines.length > 1 && <span class="note">{line.label}</span>}
          <span class="value">{format(line.values[at])}</span>
        </li>
      ))}
      columns={lines.map((line) => ({ label: line.label, value: (index) => format(line.values[index]) }))}
    />
  );
}

export function middles(startsMs: readonly number[], stepSeconds: number): number[] {
  return startsMs.map((start) => start + stepSeconds * 500);
}

/** Marks of an axis are round already: "20 rps", not "20.0 rps". */
export function brief(label: string): string {
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
