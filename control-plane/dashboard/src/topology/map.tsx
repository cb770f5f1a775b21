// The map of the mesh: nodes are links to their service's page, edges to theirs. It is moved and zoomed by mouse, fingers and
// keys. A table shows the same.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { FitAll, HealthShape, Lock, Minus, Plus } from "../components/icons";
import { DEGRADED_BELOW, FAILING_BELOW, type Health } from "../health";
import { HEAD } from "./dense";
import { Edges } from "./edges";
import { type Shown, namespacesOf, neighbours } from "./filter";
import { signature } from "./graph";
import { type Orientation, layoutOf } from "./layout";
import { Node } from "./nodes";
import { PADDING, ZOOM_IN, ZOOM_OUT, useView } from "./view";
import { type Direction, fit, nearest } from "./viewport";

/** Narrower than this, the layers go down the page. */
const NARROW = 900;
/** Shrunk further than this nobody can read it. */
const READABLE = { right: 0.75, down: 0.72 } as const;
/** Of the window's height, what a large map takes; and pixels at least. */
const TALLEST = { share: 0.74, least: 420 };
/** The buttons' height, so that they lie on nothing where all is in sight. */
const BUTTONS = 34;
/** Colours of namespaces; more of them share. */
const HUES = 8;
const PAN = 80;

const ARROWS: Record<string, { direction: Direction; x: number; y: number }> = {
  ArrowLeft: { direction: "left", x: PAN, y: 0 },
  ArrowRight: { direction: "right", x: -PAN, y: 0 },
  ArrowUp: { direction: "up", x: 0, y: PAN },
  ArrowDown: { direction: "down", x: 0, y: -PAN },
};

export interface TopologyMapProps {
  shown: Shown;
  /** The namespaces of the whole mesh: a colour belongs to one, whatever is shown. */
  namespaces: readonly string[];
  rates: ReadonlyMap<string, readonly number[]>;
  /** Services for which faults are injected. */
  faulty: ReadonlySet<string>;
  /** The service that is looked at; empty: none. */
  focus: string;
  /** Escape was pressed. */
  leave: () => void;
}

export function TopologyMap({ shown, namespaces, rates, faulty, focus, leave }: TopologyMapProps) {
  const { graph, hidden } = shown;
  const frame = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const width = useWidth(frame);
  const [pointed, setPointed] = useState<string | null>(null);
  const [at, setAt] = useState<string | null>(null);
  const orientation: Orientation = width < NARROW ? "down" : "right";
  const shape = signature(graph);
  // Only the shape matters to the layout; `graph` itself is another one with each message.
  const placed = useMemo(() => layoutOf(graph, orientation, width), [shape, orientation, orientation === "down" && width]);
  const height = heightOf(placed, width, READABLE[orientation]);
  const control = useView(frame, content, placed, READABLE[orientation], width, footOf(placed));
  const lit = pointed !== null ? neighbours(graph, pointed) : shown.lit;
  const stays = (id: string) => !hidden.has(id);
  const current = at !== null && placed.nodes.has(at) && stays(at) ? at : (graph.nodes.find(({ id }) => stays(id))?.id ?? null);
  const several = namespacesOf(graph).length > 1;

  const sight = (id: string) => {
    const node = placed.nodes.get(id);
    if (node) control.reveal({ ...node, ...placed.box });
  };
  useEffect(() => {
    if (focus === "" || width === 0) return;
    setAt(focus);
    sight(focus);
  }, [focus, placed]);

  const press = (event: KeyboardEvent) => {
    const arrow = ARROWS[event.key];
    if (arrow && event.shiftKey) control.move(arrow.x, arrow.y);
    else if (arrow) {
      const next = current === null ? null : nearest(placed.nodes, current, arrow.direction, stays);
      if (next !== null) frame.current?.querySelector<HTMLElement>(`a[data-node="${CSS.escape(next)}"]`)?.focus({ preventScroll: true });
    } else if (event.key === "+" || event.key === "=") control.zoom(ZOOM_IN);
    else if (event.key === "-") control.zoom(ZOOM_OUT);
    else if (event.key === "0") control.fitAll();
    else if (event.key === "Escape") leave();
    else return;
    event.preventDefault();
  };
  /** Whose node it is that something happens to. */
  const nodeOf = (event: Event) => (event.target as Element).closest?.("[data-node]")?.getAttribute("data-node") ?? null;

  return (
    <div class="map-frame">
      <div
        class={`map ${placed.dense ? "dense" : ""}`}
        ref={frame}
        role="group"
        aria-label="Map of the mesh. Arrow keys go from service to service, plus and minus zoom, zero shows all. The table view shows the same figures."
        style={{ height: `${height}px` }}
        onKeyDown={press}
        onPointerOver={(event) => event.pointerType === "mouse" && setPointed(nodeOf(event))}
        onPointerLeave={() => setPointed(null)}
        onFocusIn={(event) => {
          const id = nodeOf(event);
          if (id === null) return;
          setAt(id);
          if (!(event.target as Element).matches(":focus-visible")) return;
          setPointed(id);
          sight(id);
        }}
        onFocusOut={() => setPointed(null)}
        // A browser scrolls what has the focus into sight by itself, and would scroll this behind the map's own view.
        onScroll={(event) => event.currentTarget.scrollTo(0, 0)}
      >
        <div ref={content} class={`map-content ${lit ? "pointing" : ""}`} style={{ width: `${placed.width}px`, height: `${placed.height}px` }}>
          {width > 0 && (
            <>
              <Edges graph={graph} placed={placed} hidden={hidden} lit={lit} down={orientation === "down"} />
              {placed.heads.map(({ namespace, ids, x }) => {
                // Above the first that is shown: where many are hidden, their places stay empty.
                const first = ids.find(stays);
                const at = first === undefined ? undefined : placed.nodes.get(first);
                if (at === undefined) return null;
                const faded = lit !== null && !ids.some((id) => lit.has(id));
                return (
                  <span
                    key={`${namespace} ${x} ${ids[0]}`}
                    class={`head namespace-${hueOf(namespaces, namespace)} ${faded ? "faded" : ""}`}
                    style={{ transform: `translate(${x}px, ${at.y - placed.box.height / 2 - HEAD}px)` }}
                    aria-hidden="true"
                  >
                    {namespace}
                  </span>
                );
              })}
              <ul class="nodes">
                {graph.nodes.map(
                  (node) =>
                    stays(node.id) && (
                      <Node
                        key={node.id}
                        node={node}
                        placed={placed}
                        rates={rates.get(node.id) ?? []}
                        faulty={faulty.has(node.id)}
                        faded={lit !== null && !lit.has(node.id)}
                        current={node.id === current}
                        hue={several ? hueOf(namespaces, node.namespace) : null}
                      />
                    ),
                )}
              </ul>
            </>
          )}
        </div>
      </div>
      <div class="zoom" role="group" aria-label="Zoom">
        <button type="button" onClick={() => control.zoom(ZOOM_IN)} aria-label="Zoom in" title="Zoom in (+, or Ctrl and the wheel)">
          <Plus />
        </button>
        <button type="button" onClick={() => control.zoom(ZOOM_OUT)} aria-label="Zoom out" title="Zoom out (−)">
          <Minus />
        </button>
        <button type="button" onClick={() => control.fitAll()} aria-label="Show all" title="Show all (0)">
          <FitAll />
        </button>
      </div>
    </div>
  );
}

function footOf(placed: { dense: boolean }): number {
  return placed.dense ? 0 : BUTTONS;
}

/** As much as the map needs, readable; of a large one what the window has. */
function heightOf(placed: { width: number; height: number; dense: boolean }, width: number, readable: number): number {
  if (placed.width === 0 || width === 0) return 320;
  const { scale } = fit(placed, { width: width - 2 * PADDING, height: Infinity }, readable);
  const whole = placed.height * scale + 2 * PADDING + footOf(placed);
  return Math.round(placed.dense ? Math.min(whole, Math.max(TALLEST.least, innerHeight * TALLEST.share)) : whole);
}

/** Which colour a namespace has: by its place among all of them. */
export function hueOf(namespaces: readonly string[], namespace: string): number {
  return Math.max(0, namespaces.indexOf(namespace)) % HUES;
}

/** What shapes, lines and signs on the map mean. */
export function MapKey() {
  return (
    <p class="key">
      {(["good", "degraded", "failing", "idle"] as const).map((health) => (
        <span key={health}>
          <HealthShape health={health} />
          {KEY[health]}
        </span>
      ))}
      <span>
        <Lock closed={true} /> mutual TLS
      </span>
      <span>
        <Lock closed={false} /> plaintext
      </span>
      <span>Line width: requests per second</span>
      <span>≤ upper bound over several backends</span>
      <span>Drag moves, Ctrl + wheel or two fingers zoom</span>
    </p>
  );
}

const KEY: Record<Health, string> = {
  good: `${DEGRADED_BELOW * 100} % or more succeed`,
  degraded: `under ${DEGRADED_BELOW * 100} % succeed, or not all ready`,
  failing: `under ${FAILING_BELOW * 100} % succeed, or none ready`,
  idle: "no traffic",
};

/** The width of an element's inside; zero until it is known. */
function useWidth(element: { current: HTMLElement | null }): number {
  const [width, setWidth] = useState(0);
  // Before anything is drawn, so that nothing moves when it is known.
  useLayoutEffect(() => {
    if (element.current === null) return;
    setWidth(element.current.clientWidth);
    const observer = new ResizeObserver(([entry]) => entry && setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return width;
}
