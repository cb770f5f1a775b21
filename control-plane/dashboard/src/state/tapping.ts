// The stream of live requests: opened with a token, kept open, and read in gulps, so that much traffic draws the page seldom.
import { useEffect, useReducer } from "preact/hooks";
import { inWords, problemOf, wantsToken } from "../api/problem";
import type { TapEvent, TapStatus } from "../api/tap";
import { eventReader } from "./sse";
import { EMPTY, KEPT, type Tap, type TapHappening, reduce } from "./tap";

/** Between drawings; the page has at least so long for whoever clicks, however long drawing takes. */
const GULP_MS = 250;
/** The control plane says something at least every 15 s. */
const SILENCE_MS = 45_000;
const RETRY_FIRST_MS = 500;
const RETRY_MOST_MS = 10_000;

type Tell = (happening: TapHappening) => void;
/** How an attempt ended: `again` says that another may fare better. */
type End = { again: true } | { again: false };

/** Watches what `query` asks for, for as long as there is a token. Another query or token begins anew. */
export function useTap(query: string, token: string | null): [Tap, Tell] {
  const [tap, tell] = useReducer(reduce, EMPTY);
  useEffect(() => {
    tell({ type: "anew" });
    if (token === null) {
      tell({ type: "stopped", state: "needs-token", why: "" });
      return;
    }
    const ended = new AbortController();
    void keepWatching(query, token, tell, ended.signal);
    return () => ended.abort();
  }, [query, token]);
  return [tap, tell];
}

async function keepWatching(query: string, token: string, tell: Tell, ended: AbortSignal): Promise<void> {
  for (let attempts = 0; !ended.aborted; attempts += 1) {
    const opened = () => {
      attempts = 0;
      tell({ type: "opened" });
    };
    const { again } = await watch(query, token, tell, opened, ended);
    if (!again || ended.aborted) return;
    const pause = Math.min(RETRY_FIRST_MS * 2 ** attempts, RETRY_MOST_MS);
    await new Promise((resolve) => setTimeout(resolve, pause * (0.5 + Math.random() / 2)));
  }
}

async function watch(query: string, token: string, tell: Tell, opened: () => void, ended: AbortSignal): Promise<End> {
  // An attempt has an end of its own: a stream that is silent for too long is none.
  const attempt = new AbortController();
  const signal = AbortSignal.any([ended, attempt.signal]);
  let silence = setTimeout(() => attempt.abort(), SILENCE_MS);
  let gathered: TapEvent[] = [];
  let gulp: ReturnType<typeof setTimeout> | undefined;
  const pour = () => {
    clearTimeout(gulp);
    gulp = undefined;
    if (gathered.length > 0) tell({ type: "requests", requests: gathered });
    gathered = [];
  };
  try {
    const response = await fetch(`v1/mesh/tap?${query}`, { headers: { authorization: `Bearer ${token}`, accept: "text/event-stream" }, signal });
    if (!response.ok || response.body === null) return await refused(response, tell);
    opened();
    const read = eventReader();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      clearTimeout(silence);
      silence = setTimeout(() => attempt.abort(), SILENCE_MS);
      for (const event of read(value)) {
        if (event.name === "request") {
          gathered.push(JSON.parse(event.data) as TapEvent);
          // In a tab that is not seen no frame comes.
          if (gathered.length >= KEPT) pour();
          else gulp ??= setTimeout(() => requestAnimationFrame(pour), GULP_MS);
        } else if (event.name === "status") {
          tell({ type: "status", status: JSON.parse(event.data) as TapStatus });
        } else if (event.name === "ended") {
          const { reason } = JSON.parse(event.data) as { reason: string };
          pour();
          // A control plane that goes comes back.
          const again = reason.includes("shutting down");
          tell({ type: "stopped", state: again ? "lost" : "ended", why: reason });
          return { again };
        }
      }
    }
    pour();
    tell({ type: "stopped", state: "lost", why: "The stream was cut." });
    return { again: true };
  } catch {
    if (ended.aborted) return { again: false };
    pour();
    tell({ type: "stopped", state: "lost", why: "The control plane does not answer." });
    return { again: true };
  } finally {
    clearTimeout(silence);
    clearTimeout(gulp);
    attempt.abort();
  }
}

/** Says why it cannot be watched. */
async function refused(response: Response, tell: Tell): Promise<End> {
  const problem = await problemOf(response);
  const why = inWords(problem);
  if (response.status === 404 && problem.detail.includes("/v1/mesh/tap")) {
    tell({ type: "stopped", state: "refused", why: "This control plane is of a release that cannot show live requests." });
  } else if (wantsToken(problem)) {
    tell({ type: "stopped", state: "needs-token", why });
  } else {
    tell({ type: "stopped", state: "refused", why });
  }
  // Too many watch, or the store is away: that may pass.
  return { again: response.status === 503 };
}
