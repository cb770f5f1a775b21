// What all pictures over time share: one time axis, one pointer, and a drag that narrows the range. Drawn by uPlot.
import type { RefObject } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { clock } from "../format";
import type { Range } from "../route";
import { LEAST_SECONDS } from "../route";
import { resolvedColour, useTheme } from "../theme";

/** The time that a picture shows, and who is told when the reader marks a part of it. */
export interface TimeFrame {
  fromMs: number;
  untilMs: number;
  zoom: (range: Range) => void;
}

export interface PlotOptions {
  frame: TimeFrame;
  /** The middle of each point's span. */
  timesMs: readonly number[];
  /** Lines beside the times; pictures that draw by themselves have one of nothing. */
  values: (number | null)[][];
  series: uPlot.Series[];
  y: uPlot.Scale;
  yAxis: uPlot.Axis;
  /** Drawn beneath the lines. */
  draw?: (plot: uPlot) => void;
  /** Whatever else makes another drawing necessary. */
  shape: string | number;
}

export const HEIGHT = 190;
/** Seconds between the marks of the time axis. */
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
const SYNC = "time";
/** Pixels under which a drag is a click. */
const CLICK = 6;

/** Puts a plot into the element; gives the index of the point under the pointer. */
export function usePlot(element: RefObject<HTMLDivElement | null>, options: PlotOptions): number | null {
  const plot = useRef<uPlot | null>(null);
  const [pointed, setPointed] = useState<number | null>(null);
  const [theme] = useTheme();
  const latest = useRef(options);
  latest.current = options;

  useEffect(() => {
    const inside = element.current;
    if (inside === null) return;
    const { series, y, yAxis } = latest.current;
    const muted = resolvedColour("--muted");
    const grid = { stroke: resolvedColour("--grid"), width: 1 };
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const width = () => Math.max(inside.clientWidth, 120);
    const made = new uPlot(
      {
        width: width(),
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, points: { size: 6 }, sync: { key: SYNC, setSeries: false }, drag: { x: true, y: false, setScale: false, dist: CLICK } },
        scales: { x: { time: true, range: () => bounds(latest.current.frame) }, y },
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
          { stroke: muted, font, grid, ticks: { show: false }, size: 62, gap: 6, space: 38, ...yAxis },
        ],
        series: [{}, ...series],
        hooks: {
          setCursor: [({ cursor }) => setPointed(cursor.idx ?? null)],
          setSelect: [(plot) => marked(plot, latest.current.frame)],
          drawAxes: [(plot) => latest.current.draw?.(plot)],
        },
      },
      dataOf(latest.current),
      inside,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: width(), height: HEIGHT }));
    observer.observe(inside);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
    // Only what changes the drawing itself makes a new one; figures are set below.
  }, [theme, options.shape]);

  useEffect(() => plot.current?.setData(dataOf(options)), [options.timesMs, options.values, options.frame.fromMs, options.frame.untilMs]);
  return pointed !== null && pointed < options.timesMs.length ? pointed : null;
}

function dataOf({ timesMs, values }: PlotOptions): uPlot.AlignedData {
  return [timesMs.map((time) => time / 1000), ...values];
}

function bounds({ fromMs, untilMs }: TimeFrame): [number, number] {
  return [fromMs / 1000, untilMs / 1000];
}

/** What was marked becomes the range, unless it is no more than a click. */
function marked(plot: uPlot, frame: TimeFrame): void {
  const { left, width } = plot.select;
  if (width < CLICK) return;
  plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  frame.zoom(selected(plot.posToVal(left, "x") * 1000, plot.posToVal(left + width, "x") * 1000, frame));
}

/** The marked part in whole seconds, within what was shown, and not shorter than anything can be seen in. */
export function selected(fromMs: number, untilMs: number, shown: Pick<TimeFrame, "fromMs" | "untilMs">): Range {
  const until = Math.min(Math.ceil(untilMs / 1000) * 1000, shown.untilMs);
  const from = Math.max(Math.floor(fromMs / 1000) * 1000, shown.fromMs);
  return { seconds: Math.max(LEAST_SECONDS, Math.round((until - from) / 1000)), until: Math.round(until) };
}

/** Nothing that is drawn from here on leaves the plot: points at its ends may begin before it. */
export function clip({ ctx, bbox }: uPlot): void {
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
}

/** A colour of the style sheet, kept until the theme changes: drawing asks for the same few again and again. */
export function paint(variable: string): string {
  const theme = `${document.documentElement.dataset["theme"] ?? ""} ${matchMedia("(prefers-color-scheme: dark)").matches}`;
  if (theme !== paintedIn) {
    painted.clear();
    paintedIn = theme;
  }
  const known = painted.get(variable) ?? resolvedColour(variable);
  painted.set(variable, known);
  return known;
}

const painted = new Map<string, string>();
let paintedIn = "";
