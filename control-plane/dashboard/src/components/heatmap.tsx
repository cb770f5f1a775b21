// How latencies spread over time: two humps, a slow minority, a step up are seen here and not in quantiles.
import { useRef } from "preact/hooks";
import type { Series } from "../api/types";
import { latency, quantity } from "../format";
import { brief, middles } from "./chart";
import { type Heat, SHADES, heatOf, marks } from "./heat";
import { Picture } from "./picture";
import { type TimeFrame, clip, paint, usePlot } from "./plot";

export function Heatmap({ series, frame }: { series: Series; frame: TimeFrame }) {
  const element = useRef<HTMLDivElement>(null);
  const heat = heatOf(series);
  const { timesMs, stepSeconds } = series;
  const latest = useRef(heat);
  latest.current = heat;
  const pointed = usePlot(element, {
    frame,
    timesMs: middles(timesMs, stepSeconds),
    values: [timesMs.map(() => null)],
    series: [{ points: { show: false } }],
    y: { distr: 3, range: () => latest.current.range },
    yAxis: { splits: () => marks(...latest.current.range), filter: (_, splits) => splits, values: (_, values) => values.map((value) => brief(latency(value))) },
    draw: (plot) => {
      const { ctx } = plot;
      ctx.save();
      clip(plot);
      for (let shade = 1; shade <= SHADES; shade++) {
        ctx.fillStyle = paint(`--heat-${shade}`);
        for (const cell of heat.cells) {
          if (cell.shade !== shade) continue;
          const start = timesMs[cell.point]! / 1000;
          const [left, right] = [plot.valToPos(start, "x", true), plot.valToPos(start + stepSeconds, "x", true)];
          const [top, bottom] = [plot.valToPos(cell.high, "y", true), plot.valToPos(cell.low, "y", true)];
          ctx.fillRect(Math.round(left), Math.round(top), Math.max(1, Math.round(right) - Math.round(left)), Math.max(1, Math.round(bottom) - Math.round(top)));
        }
      }
      ctx.restore();
    },
    shape: "heat",
  });
  const at = pointed ?? lastOf(heat, timesMs.length);
  return (
    <Picture
      title="Latency heatmap"
      words={inWords(heat, series, at)}
      plot={element}
      timesMs={timesMs}
      at={at}
      legend={
        <>
          <li class="shades" aria-hidden="true">
            <span class="note">1</span>
            {Array.from({ length: SHADES }, (_, index) => (
              <span key={index} class="shade" style={{ background: `var(--heat-${index + 1})` }} />
            ))}
            <span class="note">{quantity(Math.max(heat.most, 1))}</span>
          </li>
          <li class="value">{spread(heat, at)}</li>
        </>
      }
      columns={[
        { label: "Requests", value: (index) => quantity(ofPoint(heat, index).reduce((sum, { count }) => sum + count, 0)) },
        { label: "Fastest under", value: (index) => latency(ofPoint(heat, index)[0]?.high) },
        { label: "Most between", value: (index) => between(mostOf(heat, index)) },
        { label: "Slowest over", value: (index) => latency(ofPoint(heat, index).at(-1)?.low) },
      ]}
    />
  );
}

function ofPoint(heat: Heat, point: number) {
  return heat.cells.filter((cell) => cell.point === point);
}

function mostOf(heat: Heat, point: number) {
  return ofPoint(heat, point).reduce<Heat["cells"][number] | null>((best, cell) => (best === null || cell.count > best.count ? cell : best), null);
}

function between(cell: Heat["cells"][number] | null): string {
  return cell === null ? "–" : `${latency(cell.low)} – ${latency(cell.high)}`;
}

function spread(heat: Heat, point: number): string {
  const cells = ofPoint(heat, point);
  if (cells.length === 0) return "no requests";
  return `${latency(cells[0]!.low)} – ${latency(cells.at(-1)!.high)}`;
}

function lastOf(heat: Heat, length: number): number {
  return heat.cells.at(-1)?.point ?? length - 1;
}

function inWords(heat: Heat, series: Series, at: number): string {
  if (heat.cells.length === 0) return "Heatmap of latency: no requests.";
  const last = series.timesMs[at] === undefined ? "" : ` Last: ${spread(heat, at)}, most ${between(mostOf(heat, at))}.`;
  return `Heatmap of latency, from ${latency(Math.min(...heat.cells.map((cell) => cell.low)))} to ${latency(Math.max(...heat.cells.map((cell) => cell.high)))}.${last}`;
}
