// The pictures that services and edges share: how often, how well, how fast, and where the time goes, over one range of time.
import type { Series } from "../api/types";
import { latency, percent, rate } from "../format";
import { segmentWords } from "../hops";
import type { Range } from "../route";
import { Chart } from "./chart";
import { Heatmap } from "./heatmap";
import type { TimeFrame } from "./plot";
import { Stack } from "./stack";
import { errorLayers } from "./stacks";

const SEGMENT_COLOURS: Record<string, string> = {
  caller: "--hop-caller",
  "client-sidecar": "--hop-client",
  retries: "--hop-retries",
  network: "--hop-network",
  "server-sidecar": "--hop-server",
  application: "--hop-application",
  "application-body": "--hop-body",
  upstream: "--hop-upstream",
};

export interface GoldenProps {
  series: Series;
  range: Range;
  zoom: (range: Range) => void;
}

export function Golden({ series, range, zoom }: GoldenProps) {
  const { timesMs, stepSeconds } = series;
  const frame = frameOf(series, range, zoom);
  const shared = { frame, timesMs, stepSeconds };
  const hops = series.hops;
  return (
    <section class="charts" aria-label="Figures over time">
      <Chart title="Requests" {...shared} format={rate} lines={[{ label: "rate", values: series.rps, colour: "--line-1", fill: true }]} />
      <Chart title="Success" {...shared} format={percent} range={successRange} lines={[{ label: "success", values: series.successRate, colour: "--line-2" }]} />
      <Chart
        title="Latency"
        {...shared}
        format={latency}
        lines={[
          { label: "p50", values: series.p50Ms, colour: "--line-1" },
          { label: "p90", values: series.p90Ms, colour: "--line-3", dash: [8, 4] },
          { label: "p99", values: series.p99Ms, colour: "--line-4", dash: [3, 3] },
        ]}
      />
      <Heatmap series={series} frame={frame} />
      <Stack
        title="Where time went"
        note="mean"
        frame={frame}
        timesMs={hops.timesMs}
        stepSeconds={hops.stepSeconds}
        layers={hops.segments.map(({ segment, meanMs }) => ({
          label: segmentWords(segment).label,
          values: meanMs,
          colour: SEGMENT_COLOURS[segment] ?? "--hop-caller",
        }))}
        format={latency}
        nothing="no time was split"
      />
      <Stack
        title="Errors by reason"
        {...shared}
        layers={errorLayers(series).map((layer, index) => ({ ...layer, colour: `--error-${index + 1}` }))}
        format={rate}
        nothing="no errors"
      />
    </section>
  );
}

/** All pictures end where the newest complete point does, however many points each of them has. */
function frameOf({ timesMs, stepSeconds }: Series, range: Range, zoom: GoldenProps["zoom"]): TimeFrame {
  const last = timesMs.at(-1);
  const untilMs = range.until ?? (last === undefined ? Date.now() : last + stepSeconds * 1000);
  return { fromMs: untilMs - range.seconds * 1000, untilMs, zoom };
}

/** From a little under the worst (at 99 % or lower) to 100 %, so that small dips show and calm looks calm. */
function successRange(least: number): [number, number] {
  const floor = Math.min(least, 0.99);
  return [Math.max(0, floor - (1 - floor) * 0.15), 1];
}
