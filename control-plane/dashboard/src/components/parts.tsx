// Small pieces that several pages share: health in words, times, tiles, notes for empty pages.
import type { ComponentChildren } from "preact";
import type { MeshEdge, Workload } from "../api/types";
import { NOTHING, exact, percent, relative } from "../format";
import { HEALTH_WORDS, type Health, healthOf } from "../health";
import { edgeHref, workloadHref } from "../route";
import type { Said } from "../standing";
import { useLive, useNow } from "../state/store";
import { HealthShape, Lock } from "./icons";
import { sparkline } from "./sparkline";

export function HealthBadge({ health, word }: { health: Health; word?: string }) {
  return (
    <span class={`badge ${health}`}>
      <HealthShape health={health} />
      {word ?? HEALTH_WORDS[health]}
    </span>
  );
}

/** A word of how something is; with the shape of that where it is not as it should be. */
export function Saying({ said: { health, word } }: { said: Said }) {
  if (health === "good" || health === "idle") return <>{word}</>;
  return (
    <span class={`success ${health}`}>
      <HealthBadge health={health} word={word} />
    </span>
  );
}

/** A success rate with the shape of the health it tells of. */
export function Success({ rps, successRate }: { rps: number; successRate: number | null }) {
  const health = healthOf({ rps, successRate });
  return (
    <span class={`success ${health}`}>
      {(health === "degraded" || health === "failing") && <HealthShape health={health} />}
      {percent(successRate)}
    </span>
  );
}

/** A moment, relative to the control plane's clock; exact on hover and for machines. */
export function Time({ timeMs }: { timeMs: number }) {
  const { clockOffsetMs } = useLive();
  const now = useNow() + clockOffsetMs;
  return (
    <time dateTime={new Date(timeMs).toISOString()} title={exact(timeMs)}>
      {relative(timeMs, now)}
    </time>
  );
}

export function Tile({ label, children, note }: { label: string; children: ComponentChildren; note?: ComponentChildren }) {
  return (
    <div class="tile">
      <dt>{label}</dt>
      <dd>
        <span class="figure">{children}</span>
        {note != null && <span class="note">{note}</span>}
      </dd>
    </div>
  );
}

/** Around a table that may be wider than the page: it scrolls by itself, also with the keyboard. Named by words, or by the id of a heading. */
export function TableFrame({ label, by, children }: ({ label: string; by?: undefined } | { by: string; label?: undefined }) & { children: ComponentChildren }) {
  return (
    <div class="table-frame" role="region" aria-label={label} aria-labelledby={by} tabIndex={0}>
      {children}
    </div>
  );
}

/** Words in which `code` stands between backticks. */
export function Prose({ text }: { text: string }) {
  return <>{text.split("`").map((part, index) => (index % 2 === 1 ? <code key={index}>{part}</code> : part))}</>;
}

/** Where a workload is listed by itself: its name, and the way to where it serves. */
export function WorkloadName({ of: { workload, namespace, service } }: { of: Pick<Workload, "workload" | "namespace" | "service"> }) {
  return (
    <>
      <a href={workloadHref(workload, service || `${workload}.${namespace}`)}>{workload}</a> <span class="namespace">{namespace}</span>
    </>
  );
}

/** What to do where there is nothing to show yet. */
export function Empty({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** How an edge travels: the lock of mutual TLS, or plaintext, in words; neither where nothing was sent. */
export function Transport({ edge }: { edge: Pick<MeshEdge, "mtls" | "tlsVersion"> }) {
  if (edge.mtls == null) return <span class="note">{NOTHING}</span>;
  return (
    <span class={`transport ${edge.mtls ? "secured" : "plaintext"}`}>
      <Lock closed={edge.mtls} />
      {edge.mtls ? `mTLS${edge.tlsVersion ? `, ${edge.tlsVersion}` : ""}` : "plaintext"}
    </span>
  );
}

/** To the page of all that goes from one to another; its few words say which to those who only hear them. */
export function EdgeLink({ edge: { from, to }, children, ...more }: { edge: Pick<MeshEdge, "from" | "to">; class?: string; children: string }) {
  return (
    <a {...more} href={edgeHref(from, to)} aria-label={`Edge from ${from} to ${to}`}>
      {children}
    </a>
  );
}

/** A line of recent values over a base line, which is there from the start; the same figure stands beside it, so it is decoration. */
export function Sparkline({ values, width = 64, height = 18 }: { values: readonly number[]; width?: number; height?: number }) {
  return (
    <svg class="sparkline" width={width} height={height} aria-hidden="true">
      <path d={`M0,${height - 0.5}H${width}`} />
      <polyline points={sparkline(values, width, height)} />
    </svg>
  );
}
