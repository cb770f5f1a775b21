// Shares of a whole over time, as stacked bars.
import { useRef } from "preact/hooks";
import { brief, middles } from "./chart";
import { Picture } from "./picture";
import { type TimeFrame, clip, paint, usePlot } from "./plot";
import { type Layer, tops } from "./stacks";

export interface StackProps {
  title: string;
  note?: string;
  frame: TimeFrame;
  timesMs: number[];
  stepSeconds: number;
  layers: Layer[];
  format: (value: number | null | undefined) => string;
  /** Said where there are no layers. */
  nothing: string;
}

export function Stack({ title, note, frame, timesMs, stepSeconds, layers, format, nothing }: StackProps) {
  const element = useRef<HTMLDivElement>(null);
  const ends = tops(layers);
  const whole = ends.at(-1) ?? timesMs.map(() => 0);
  const pointed = usePlot(element, {
    frame,
    timesMs: middles(timesMs, stepSeconds),
    values: [whole],
    series: [{ stroke: "transparent", points: { show: false } }],
    y: { range: (_, __, most) => [0, most && most > 0 ? most * 1.12 : 1] },
    yAxis: { values: (_, values) => values.map((value) => brief(format(value))) },
    draw: (plot) => {
      const { ctx } = plot;
      ctx.save();
      clip(plot);
      for (const [order, layer] of layers.entries()) {
        ctx.fillStyle = paint(layer.colour);
        for (const [index, startMs] of timesMs.entries()) {
          const [under, top] = [order === 0 ? 0 : ends[order - 1]![index]!, ends[order]![index]!];
          if (top <= under) continue;
          const left = plot.valToPos(startMs / 1000, "x", true);
          const right = plot.valToPos(startMs / 1000 + stepSeconds, "x", true);
          const upper = plot.valToPos(top, "y", true);
          ctx.fillRect(left, upper, Math.max(1, right - left - 1), plot.valToPos(under, "y", true) - upper);
        }
      }
      ctx.restore();
    },
    shape: "stack",
  });
  const at = pointed ?? lastOf(whole);
  return (
    <Picture
      title={title}
      {...(note ? { note } : {})}
      words={inWords(title, layers, whole, format, nothing)}
      plot={element}
      timesMs={timesMs}
      at={at}
      legend={
        layers.length === 0 ? (
          <li class="note">{nothing}</li>
        ) : (
          layers.map((layer) => (
            <li key={layer.label}>
              <span class="swatch" style={{ background: `var(${layer.colour})` }} aria-hidden="true" />
              <span class="note">{layer.label}</span>
              <span class="value">{format(layer.values[at] ?? 0)}</span>
            </li>
          ))
        )
      }
      columns={layers.map((layer) => ({ label: layer.label, value: (index) => format(layer.values[index] ?? 0) }))}
    />
  );
}

/** The newest point that has anything; else the newest. */
function lastOf(whole: readonly number[]): number {
  for (let index = whole.length - 1; index >= 0; index--) if (whole[index]! > 0) return index;
  return whole.length - 1;
}

function inWords(title: string, layers: readonly Layer[], whole: readonly number[], format: StackProps["format"], nothing: string): string {
  if (layers.length === 0) return `${title}: ${nothing}.`;
  const at = lastOf(whole);
  return `Stacked bars of ${title}. Last: ${layers.map(({ label, values }) => `${label} ${format(values[at] ?? 0)}`).join("; ")}.`;
}
