// The stream of live requests: opened with a token, kept open, and read in gulps, so that much traffic draws the page seldom.
import { useEffect, useReducer } from "preact/hooks";
import { type Problem, inWords, reasonOf, wantsToken } from "../api/problem";
import type { TapEvent, TapStatus } from "../api/tap";
import { type Follower, follow } from "./follow";
import type { ServerEvent } from "./sse";
import { EMPTY, KEPT, type Tap, type TapHappening, reduce } from "./tap";
import { authorization } from "./token";

/** Between drawings; the page has at least so long for whoever clicks, however long drawing takes. */
const GULP_MS = 250;

type Tell = (happening: TapHappening) => void;

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
    const { take, drop } = inGulps(tell);
    void follow(`v1/mesh/tap?${query}`, authorization(token), take, ended.signal);
    return () => {
      ended.abort();
      drop();
    };
  }, [query, token]);
  return [tap, tell];
}

/** Tells of what happens, of requests many at once. */
export function inGulps(tell: Tell): { take: Follower; drop: () => void } {
  let gathered: TapEvent[] = [];
  let gulp: ReturnType<typeof setTimeout> | undefined;
  let frame = 0;
  const drop = () => {
    clearTimeout(gulp);
    cancelAnimationFrame(frame);
    gulp = undefined;
    gathered = [];
  };
  const pour = () => {
    const requests = gathered;
    drop();
    if (requests.length > 0) tell({ type: "requests", requests });
  };
  const heard = ({ name, data }: ServerEvent): boolean => {
    if (name === "request") {
      gathered.push(JSON.parse(data) as TapEvent);
      // In a tab that is not seen no frame comes.
      if (gathered.length >= KEPT) pour();
      else gulp ??= setTimeout(() => (frame = requestAnimationFrame(pour)), GULP_MS);
    } else if (name === "status") {
      tell({ type: "status", status: JSON.parse(data) as TapStatus });
    } else if (name === "ended") {
      const { reason } = JSON.parse(data) as { reason: string };
      pour();
      // A control plane that goes comes back.
      const again = reason.includes("shutting down");
      tell({ type: "stopped", state: again ? "lost" : "ended", why: reason });
      return again;
    }
    return true;
  };
  const take: Follower = (followed) => {
    switch (followed.type) {
      case "opened":
        return tell({ type: "opened" });
      case "event":
        return heard(followed.event);
      case "refused":
        return refused(followed.problem, tell);
      case "lost":
        pour();
        return tell({ type: "stopped", state: "lost", why: followed.why });
    }
  };
  return { take, drop };
}

/** Says why it cannot be watched, and whether that may pass. */
function refused(problem: Problem, tell: Tell): boolean {
  if (problem.status === 404 && problem.detail.includes("/v1/mesh/tap")) {
    tell({ type: "stopped", state: "refused", why: "This control plane is of a release that cannot show live requests." });
  } else {
    // A token of one namespace watches that.
    const asks = wantsToken(problem) && reasonOf(problem) !== "token-lacks-namespace";
    tell({ type: "stopped", state: asks ? "needs-token" : "refused", why: inWords(problem) });
  }
  // Too many watch, or the store is away.
  return problem.status === 503;
}
