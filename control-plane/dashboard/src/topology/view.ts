// The map's frame as people move it: dragged, pinched, by wheel and keys. Moves the drawing itself, without drawing it anew.
import type { RefObject } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { type Box, SMALLEST, type Size, type View, fit, held, isWhole, reveal, zoomAt } from "./viewport";

/** Pixels that a press may move and still be a click. */
const CLICK = 4;
const STEP = 1.3;
/** Around the map within its frame, pixels. */
export const PADDING = 14;

export interface ViewControl {
  zoom: (factor: number) => void;
  fitAll: () => void;
  move: (x: number, y: number) => void;
  reveal: (box: Box) => void;
}

export const ZOOM_IN = STEP;
export const ZOOM_OUT = 1 / STEP;

/**
 * Lets people move `content` within `frame`. Until somebody does, a map of another shape is fitted anew; `readable` is the scale that
 * this does not go below, and `foot` the pixels at its end that are taken.
 */
export function useView(frame: RefObject<HTMLElement | null>, content: RefObject<HTMLElement | null>, map: Size, readable: number, width: number, foot: number): ViewControl {
  const view = useRef<View>({ x: 0, y: 0, scale: 1 });
  const moved = useRef(false);
  const size = useRef(map);
  size.current = map;

  const room = (): Size => ({ width: frame.current?.clientWidth ?? 0, height: frame.current?.clientHeight ?? 0 });
  const free = (): Size => ({ width: room().width, height: room().height - foot });
  const apply = (next: View) => {
    view.current = held(next, size.current, room());
    const { x, y, scale } = view.current;
    if (content.current) content.current.style.transform = `translate(${round(x)}px, ${round(y)}px) scale(${round(scale)})`;
    // Where all is in sight, a finger moves the page, as anywhere else.
    frame.current?.classList.toggle("movable", !isWhole(view.current, size.current, room()));
  };
  const change = (next: View) => {
    moved.current = true;
    apply(next);
  };

  useLayoutEffect(() => {
    if (!moved.current) apply(fit(map, free(), readable, PADDING));
    else apply(view.current);
  }, [map, readable, width]);

  useLayoutEffect(() => {
    const element = frame.current;
    if (element === null) return;
    const fingers = new Map<number, { x: number; y: number }>();
    let dragging = false;
    let start = { x: 0, y: 0 };
    const at = (event: { clientX: number; clientY: number }) => {
      const { left, top } = element.getBoundingClientRect();
      return { x: event.clientX - left, y: event.clientY - top };
    };
    const spread = () => {
      const [one, other] = [...fingers.values()];
      return one && other ? { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2, away: Math.hypot(one.x - other.x, one.y - other.y) } : null;
    };
    const down = (event: PointerEvent) => {
      if (event.button !== 0) return;
      fingers.set(event.pointerId, at(event));
      if (fingers.size === 1) [start, dragging] = [at(event), false];
    };
    const move = (event: PointerEvent) => {
      const before = fingers.get(event.pointerId);
      if (before === undefined) return;
      const now = at(event);
      const pinchedBefore = spread();
      if (!dragging) {
        if (Math.hypot(now.x - start.x, now.y - start.y) < CLICK && fingers.size < 2) return;
        // A mouse may always move the map; a finger only where something is out of sight, and two fingers always.
        if (event.pointerType === "touch" && fingers.size < 2 && !element.classList.contains("movable")) return;
        dragging = true;
        element.setPointerCapture(event.pointerId);
        element.classList.add("dragging");
      }
      fingers.set(event.pointerId, now);
      const pinched = spread();
      const { x, y, scale } = view.current;
      if (pinched && pinchedBefore && pinchedBefore.away > 0) {
        const turned = zoomAt({ x: x + pinched.x - pinchedBefore.x, y: y + pinched.y - pinchedBefore.y, scale }, pinched.away / pinchedBefore.away, pinched.x, pinched.y);
        change(turned);
      } else if (!pinched) change({ x: x + now.x - before.x, y: y + now.y - before.y, scale });
    };
    const up = (event: PointerEvent) => {
      fingers.delete(event.pointerId);
      if (fingers.size === 0) element.classList.remove("dragging");
    };
    // What ends a drag is no click on what happens to lie there.
    const click = (event: MouseEvent) => {
      if (!dragging) return;
      dragging = false;
      event.preventDefault();
      event.stopPropagation();
    };
    const wheel = (event: WheelEvent) => {
      // The wheel alone scrolls the page; a pinch on a touchpad comes as one with Ctrl.
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const { x, y } = at(event);
      change(zoomAt(view.current, Math.exp(-event.deltaY / 300), x, y));
    };
    element.addEventListener("pointerdown", down);
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerup", up);
    element.addEventListener("pointercancel", up);
    element.addEventListener("click", click, { capture: true });
    element.addEventListener("wheel", wheel, { passive: false });
    return () => {
      element.removeEventListener("pointerdown", down);
      element.removeEventListener("pointermove", move);
      element.removeEventListener("pointerup", up);
      element.removeEventListener("pointercancel", up);
      element.removeEventListener("click", click, { capture: true });
      element.removeEventListener("wheel", wheel);
    };
  }, []);

  return {
    zoom: (factor) => change(zoomAt(view.current, factor, room().width / 2, room().height / 2)),
    fitAll: () => {
      moved.current = false;
      apply(fit(size.current, free(), SMALLEST, PADDING));
    },
    move: (x, y) => change({ ...view.current, x: view.current.x + x, y: view.current.y + y }),
    reveal: (box) => apply(reveal(view.current, box, room())),
  };
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
