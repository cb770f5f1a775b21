// Which time is shown: so many minutes up to now, or a part of the kept half hour that stands still.
import { clock, span } from "../format";
import { KEPT_SECONDS, type Range, SPANS_MINUTES, go } from "../route";
import { useLive, useNow } from "../state/store";
import { Pause, Play } from "./icons";

export interface RangeProps {
  range: Range;
  /** The same page with another range. */
  to: (range: Range) => string;
  /** Whether the page shows anything over a span, or one moment only. */
  spans?: boolean;
}

export function RangeControl({ range, to, spans = true }: RangeProps) {
  const { clockOffsetMs } = useLive();
  const now = useNow() + clockOffsetMs;
  const { seconds, until } = range;
  const step = Math.max(10, Math.round(seconds / 2)) * 1000;
  // Beyond this nothing is kept.
  const oldest = now - (KEPT_SECONDS - seconds) * 1000;
  return (
    <div class="range" role="group" aria-label="Time">
      {spans && (
        <div class="switch">
          {SPANS_MINUTES.map((minutes) => (
            <a key={minutes} href={to({ seconds: minutes * 60, until })} aria-current={minutes * 60 === seconds ? "true" : undefined}>
              {minutes} min
            </a>
          ))}
        </div>
      )}
      <div class="switch">
        <button type="button" disabled={until !== null && until - step < oldest} onClick={() => go(to({ seconds, until: Math.round((until ?? now) - step) }))} aria-label="Earlier" title="Earlier">
          ‹
        </button>
        <button type="button" class="pause" aria-pressed={until !== null} onClick={() => go(to({ seconds, until: until === null ? Math.round(now) : null }))}>
          {until === null ? <Pause /> : <Play />}
          {until === null ? "Pause" : "Live"}
        </button>
        <button
          type="button"
          disabled={until === null}
          onClick={() => until !== null && go(to({ seconds, until: until + step >= now ? null : until + step }))}
          aria-label="Later"
          title="Later"
        >
          ›
        </button>
      </div>
      <span class="note at" role="status">
        {until !== null && <Standing range={{ seconds, until }} spans={spans} old={now - until > KEPT_SECONDS * 1000} />}
      </span>
    </div>
  );
}

function Standing({ range: { seconds, until }, spans, old }: { range: { seconds: number; until: number }; spans: boolean; old: boolean }) {
  const when = spans ? `${clock(until - seconds * 1000)} – ${clock(until)}` : clock(until);
  return (
    <>
      paused at <time dateTime={new Date(until).toISOString()}>{when}</time>
      {spans && !SPANS_MINUTES.some((minutes) => minutes * 60 === seconds) && ` (${span(seconds * 1000)})`}
      {old && ": longer ago than anything is kept"}
    </>
  );
}
