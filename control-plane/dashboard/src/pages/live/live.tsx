// Live requests: what is watched stands in the address, the list stands still on demand, and the chosen request is told in full.
import { useEffect, useMemo, useState } from "preact/hooks";
import { Empty } from "../../components/parts";
import { TokenForm } from "../../components/token";
import { count } from "../../format";
import { type Tap, leftOut } from "../../state/tap";
import { useTap } from "../../state/tapping";
import { setToken, useToken } from "../../state/token";
import { Chosen } from "./chosen";
import { WatchForm } from "./form";
import { Requests } from "./requests";
import { type Watch, conditions, tapQuery } from "./watch";

export function LivePage({ watch }: { watch: Watch }) {
  const query = tapQuery(watch);
  const fits = conditions(watch);
  const token = useToken();
  const [tap, tell] = useTap(query, token);
  const [chosen, choose] = useState<number | null>(null);
  // It stays to be read when it has left the list.
  const row = useMemo(() => tap.rows.find((known) => known.id === chosen) ?? null, [chosen]);
  useEffect(() => choose(null), [query, token]);

  return (
    <div class="live">
      <div class="page-head">
        <h1>Live requests</h1>
        <div class="live-switches">
          {token !== null && (
            <button type="button" onClick={() => setToken(null)}>
              Forget the token
            </button>
          )}
          <button type="button" disabled={tap.rows.length === 0} onClick={() => tell({ type: "clear" })}>
            Clear
          </button>
          <button type="button" class="main" aria-pressed={tap.paused} onClick={() => tell({ type: tap.paused ? "resume" : "pause" })}>
            {tap.paused ? `Resume${tap.heldBack > 0 ? ` (${tap.heldBack} new)` : ""}` : "Pause"}
          </button>
        </div>
      </div>
      <WatchForm key={query} watch={watch} />
      {tap.state === "needs-token" ? (
        <TokenForm title="Watching live requests needs a token" why={tap.why}>
          <p>
            Paths and headers may tell what not everybody is to know, so a token with the role operator is needed, also on this machine. It is
            kept in this tab only.
          </p>
        </TokenForm>
      ) : (
        <>
          <Standing tap={tap} />
          <Requests rows={tap.rows} chosen={chosen} choose={choose}>
            {tap.rows.length === 0 && (
              <Empty title={tap.state === "watching" ? "No request has fitted so far" : "Nothing is watched"}>
                <p>
                  Requests appear here as they end{fits.length === 0 ? "." : <>, if they fit: <strong>{fits.join(" · ")}</strong>.</>}
                </p>
              </Empty>
            )}
          </Requests>
          {row !== null && <Chosen request={row.request} close={() => choose(null)} />}
        </>
      )}
    </div>
  );
}

/** How it goes; always as high, so that nothing below it moves. */
function Standing({ tap }: { tap: Tap }) {
  const notes = [...(tap.status?.notes ?? []), leftOut(tap.status)].filter((note) => note !== "");
  return (
    <div class="live-standing" data-state={tap.state}>
      <p role="status">{words(tap)}</p>
      <p class="note" title={notes.join("\n")}>
        {notes.join(" · ")}
      </p>
    </div>
  );
}

function words(tap: Tap): string {
  switch (tap.state) {
    case "connecting":
      return "Connecting…";
    case "watching": {
      const told = tap.status === null ? "Watching." : `Watching: ${count(tap.status.listening, "sidecar tells", "sidecars tell")}.`;
      return tap.paused ? `${told} The list stands still.` : told;
    }
    case "lost":
      return `${tap.why} Trying again…`;
    case "ended":
      return `The control plane has ended it: ${tap.why}`;
    case "refused":
      return tap.why;
    case "needs-token":
      return "";
  }
}
