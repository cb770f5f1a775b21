// Which part of the map is seen and how large: zooming, moving and fitting, as arithmetic.

/** A point of the map is drawn at `point × scale + (x, y)`. */
export interface View {
  x: number;
  y: number;
  scale: number;
}

export interface Size {
  width: number;
  height: number;
}

export interface Box extends Size {
  /** Its centre. */
  x: number;
  y: number;
}

export const SMALLEST = 0.1;
export const LARGEST = 3;
/** What of the map always stays within sight, pixels. */
const GRIP = 80;
/** Around what is brought into sight, pixels. */
const MARGIN = 28;

/** All of it, in the middle, as long as that is not smaller than `least`; else its beginning. Never larger than it is. */
export function fit(map: Size, frame: Size, least = SMALLEST, inset = 0): View {
  const room = { width: frame.width - 2 * inset, height: frame.height - 2 * inset };
  const scale = within(Math.min(room.width / map.width, room.height / map.height), least, 1);
  const { x, y } = centred(map, room, scale);
  return { scale, x: x + inset, y: y + inset };
}


/** In the middle; what is larger than the frame begins at its edge. */
function centred(map: Size, frame: Size, scale: number): { x: number; y: number } {
  return { x: Math.max(0, (frame.width - map.width * scale) / 2), y: Math.max(0, (frame.height - map.height * scale) / 2) };
}

/** Larger or smaller, with the point of the frame at (x, y) kept in its place. */
export function zoomAt(view: View, factor: number, x: number, y: number): View {
  const scale = within(view.scale * factor, SMALLEST, LARGEST);
  const change = scale / view.scale;
  return { scale, x: x - (x - view.x) * change, y: y - (y - view.y) * change };
}

/** Never moved so far that nothing of it is seen. */
export function held(view: View, map: Size, frame: Size): View {
  const keep = (at: number, size: number, room: number) => within(at, Math.min(0, GRIP - size), Math.max(room - size, room - GRIP));
  return { ...view, x: keep(view.x, map.width * view.scale, frame.width), y: keep(view.y, map.height * view.scale, frame.height) };
}

/** Moved as little as brings the box into sight. */
export function reveal(view: View, box: Box, frame: Size): View {
  const shift = (low: number, high: number, room: number) => (low < MARGIN ? MARGIN - low : high > room - MARGIN ? Math.max(room - MARGIN - high, MARGIN - low) : 0);
  const [x, y] = [box.x * view.scale + view.x, box.y * view.scale + view.y];
  const [halfWidth, halfHeight] = [(box.width * view.scale) / 2, (box.height * view.scale) / 2];
  return { ...view, x: view.x + shift(x - halfWidth, x + halfWidth, frame.width), y: view.y + shift(y - halfHeight, y + halfHeight, frame.height) };
}

/** Whether all of the map is in sight. */
export function isWhole(view: View, map: Size, frame: Size): boolean {
  return view.x >= -1 && view.y >= -1 && view.x + map.width * view.scale <= frame.width + 1 && view.y + map.height * view.scale <= frame.height + 1;
}

export type Direction = "left" | "right" | "up" | "down";

/** The nearest in a direction; what lies straight ahead is nearer than what lies aside. */
export function nearest(places: ReadonlyMap<string, { x: number; y: number }>, from: string, direction: Direction, stays: (id: string) => boolean): string | null {
  const start = places.get(from);
  if (start === undefined) return null;
  const horizontal = direction === "left" || direction === "right";
  const sign = direction === "left" || direction === "up" ? -1 : 1;
  let best: { id: string; away: number } | null = null;
  for (const [id, at] of places) {
    if (id === from || !stays(id)) continue;
    const [ahead, aside] = horizontal ? [(at.x - start.x) * sign, Math.abs(at.y - start.y)] : [(at.y - start.y) * sign, Math.abs(at.x - start.x)];
    if (ahead < 1) continue;
    const away = ahead + 2.5 * aside;
    if (best === null || away < best.away) best = { id, away };
  }
  return best?.id ?? null;
}

function within(value: number, least: number, most: number): number {
  return Math.min(Math.max(value, least), most);
}
