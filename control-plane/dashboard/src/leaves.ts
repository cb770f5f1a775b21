// A value's parts in words, as `pillion explain` shows them.

/** Every value in one, with the way to it: `faults[0].abort.status` and `503`. A list of plain values is one: `500, 503`. */
export function leaves(at: string, value: unknown): [string, string][] {
  if (Array.isArray(value)) {
    if (value.some(isObject)) return value.flatMap((item, index) => leaves(`${at}[${index}]`, item));
    if (value.length > 0) return [[at, value.map(plain).join(", ")]];
  } else if (isObject(value) && Object.keys(value).length > 0) {
    return Object.entries(value).flatMap(([name, inner]) => leaves(at === "" ? name : `${at}.${name}`, inner));
  }
  return [[at, plain(value)]];
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function plain(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}
