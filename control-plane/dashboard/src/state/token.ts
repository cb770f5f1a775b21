// The token of whoever may do more than look. It is kept for this tab only, until the tab is closed or the server does not take it.
import { useEffect, useState } from "preact/hooks";

const KEPT_AS = "pillion-token";
const listeners = new Set<(token: string | null) => void>();
let token: string | null = kept();

function kept(): string | null {
  try {
    return sessionStorage.getItem(KEPT_AS);
  } catch {
    // A browser that keeps nothing: it is asked for again after a reload.
    return null;
  }
}

/** `null` forgets it. */
export function setToken(next: string | null): void {
  token = next;
  try {
    if (next === null) sessionStorage.removeItem(KEPT_AS);
    else sessionStorage.setItem(KEPT_AS, next);
  } catch {
    // As above.
  }
  for (const listener of listeners) listener(token);
}

/** What a request says of whoever makes it: always, where there is a token, as only the server knows whether reading needs one. */
export function authorization(of = token): Record<string, string> {
  return of === null ? {} : { authorization: `Bearer ${of}` };
}

/** Calls when there is another. */
export function onToken(listener: () => void): void {
  listeners.add(listener);
}

export function useToken(): string | null {
  const [value, setValue] = useState(token);
  useEffect(() => {
    setValue(token);
    listeners.add(setValue);
    return () => void listeners.delete(setValue);
  }, []);
  return value;
}
