// One answer of the REST API, kept fresh while it is shown.
import { useEffect, useRef, useState } from "preact/hooks";

/** How often a shown resource is asked for again. */
const REFRESH_MS = 2_000;
/** A request that takes longer has failed. */
const DEADLINE_MS = 5_000;

export interface Resource<T> {
  /** The last good answer, also while newer requests fail. */
  data: T | null;
  /** Why the last request failed; `null` if it did not. */
  fault: string | null;
  /** The server says that there is no such thing. */
  absent: boolean;
}

/** Fetches `url` now and again every two seconds while the page is visible. A new `url` starts from nothing. */
export function useResource<T>(url: string): Resource<T> {
  const empty: Resource<T> = { data: null, fault: null, absent: false };
  const [state, setState] = useState<{ url: string; resource: Resource<T> }>({ url, resource: empty });
  const latest = useRef(url);
  latest.current = url;

  useEffect(() => {
    const ended = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    const update = (change: (known: Resource<T>) => Resource<T>) =>
      setState((known) => ({ url, resource: change(known.url === url ? known.resource : empty) }));

    const refresh = async () => {
      if (document.visibilityState === "visible") {
        try {
          const response = await fetch(url, {
            headers: { accept: "application/json" },
            signal: AbortSignal.any([ended.signal, AbortSignal.timeout(DEADLINE_MS)]),
          });
          if (response.ok) {
            const data = (await response.json()) as T;
            update(() => ({ data, fault: null, absent: false }));
          } else {
            const fault = await problem(response);
            update((known) => ({ data: known.data, fault, absent: response.status === 404 }));
          }
        } catch {
          if (ended.signal.aborted) return;
          update((known) => ({ ...known, fault: "The control plane does not answer." }));
        }
      }
      if (!ended.signal.aborted) timer = setTimeout(() => void refresh(), REFRESH_MS);
    };
    void refresh();
    return () => {
      ended.abort();
      clearTimeout(timer);
    };
  }, [url]);

  return state.url === url ? state.resource : empty;
}

/** What a problem document (RFC 9457) says, or at least the status. */
async function problem(response: Response): Promise<string> {
  try {
    const document = (await response.json()) as { title?: string; detail?: string };
    return document.detail ?? document.title ?? `status ${response.status}`;
  } catch {
    return `The control plane answered with status ${response.status}.`;
  }
}
