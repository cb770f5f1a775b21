// One answer of the REST API, kept fresh while it is shown.
import { useEffect, useState } from "preact/hooks";
import { inWords, lacksToken, problemOf } from "../api/problem";
import { doubtToken } from "./store";
import { authorization } from "./token";

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

/**
 * Fetches `url` now and, unless it `stands` still, again every two seconds while the page is visible. A new `url` of the same
 * `subject` (another range of the same service) leaves what is shown until the answer is there; another subject starts from nothing.
 */
export function useResource<T>(url: string, subject = url, stands = false): Resource<T> {
  const empty: Resource<T> = { data: null, fault: null, absent: false };
  const [state, setState] = useState<{ subject: string; resource: Resource<T> }>({ subject, resource: empty });

  useEffect(() => {
    const ended = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    const update = (change: (known: Resource<T>) => Resource<T>) =>
      setState((known) => ({ subject, resource: change(known.subject === subject ? known.resource : empty) }));

    const refresh = async () => {
      let settled = false;
      if (document.visibilityState === "visible") {
        try {
          const response = await fetch(url, {
            headers: { accept: "application/json", ...authorization() },
            signal: AbortSignal.any([ended.signal, AbortSignal.timeout(DEADLINE_MS)]),
          });
          if (response.ok) {
            const data = (await response.json()) as T;
            update(() => ({ data, fault: null, absent: false }));
            settled = stands;
          } else {
            const problem = await problemOf(response);
            update((known) => ({ data: known.data, fault: inWords(problem), absent: response.status === 404 }));
            if (lacksToken(problem)) doubtToken();
          }
        } catch {
          if (ended.signal.aborted) return;
          update((known) => ({ ...known, fault: "The control plane does not answer." }));
        }
      }
      if (!ended.signal.aborted && !settled) timer = setTimeout(() => void refresh(), REFRESH_MS);
    };
    void refresh();
    return () => {
      ended.abort();
      clearTimeout(timer);
    };
  }, [url, subject, stands]);

  return state.subject === subject ? state.resource : empty;
}
