// Is it the application, the network or the mesh? A stacked bar of requests' way, and one for each edge.
import type { EdgeHops, Hops, HopSegment, WorkloadHops } from "../api/types";
import { count, latency, percent, serviceName } from "../format";
import { inWords, segmentWords } from "../hops";
import { serviceHref, workloadHref } from "../route";
import { EdgeLink, TableFrame } from "./parts";

export interface HopsProps {
  full: string;
  /** Of all requests to the service. */
  hops: Hops | null;
  edges: readonly EdgeHops[];
}

export function HopsSection({ full, hops, edges }: HopsProps) {
  if (hops === null && edges.length === 0) return null;
  return (
    <section aria-labelledby="hops-title" class="hops">
      <h2 id="hops-title">
        Where the time goes <span class="note">last minute, mean</span>
      </h2>
      <div class="panel">
        {hops !== null && (
          <div class="all" data-most={mostOf(hops)}>
            <VerdictLine hops={hops} />
            <HopBar segments={hops.segments} />
            <HopKey segments={hops.segments} />
            <ByWorkload workloads={hops.workloads ?? []} service={full} />
          </div>
        )}
        {edges.length > 0 && (
          <ul class="hop-edges">
            {edges.map((edge) => (
              <li key={`${edge.from} ${edge.to} ${edge.backend ?? ""}`} data-edge={`${edge.from}→${edge.to}`} data-most={mostOf(edge)}>
                <span class="who">
                  <End name={edge.from} full={full} /> → <End name={edge.to} full={full} />{" "}
                  <EdgeLink class="note" edge={edge}>
                    edge
                  </EdgeLink>
                  {edge.backend && <span class="note"> served by {serviceName(edge.backend).name}</span>}
                </span>
                <HopBar segments={edge.segments} />
                <span class="note">{edge.verdict?.text}</span>
              </li>
            ))}
          </ul>
        )}
      </div>
    </section>
  );
}

export function mostOf(hops: Hops): string {
  return hops.segments.reduce((best, segment) => (segment.share > best.share ? segment : best), { segment: "", share: 0 }).segment;
}

function End({ name, full }: { name: string; full: string }) {
  return name === full ? <strong>{serviceName(name).name}</strong> : <a href={serviceHref(name)}>{serviceName(name).name}</a>;
}

/** The same at the head of a page, for whoever has no time to look further down. */
export function Answer({ hops }: { hops: Hops | null }) {
  return hops?.verdict ? (
    <div class="answer-first">
      <span class="note">Where the time goes</span>
      <VerdictLine hops={hops} />
    </div>
  ) : null;
}

/** The answer in one sentence, before the figures that it is from. */
export function VerdictLine({ hops }: { hops: Hops }) {
  const { verdict } = hops;
  return (
    <p class="answer" data-segment={verdict?.segment ?? "none"} data-workload={verdict?.workload ?? ""}>
      {verdict?.segment && <span class={`hop swatch ${verdict.segment}`} aria-hidden="true" />}
      <strong>{verdict?.text}</strong> <span class="note">{count(hops.requests, "request")}</span>
    </p>
  );
}

/** More are not told apart by looking. */
const WORKLOADS = 8;

/** Each as long as its requests take beside the slowest's: what is slow in one only would be hidden in the average. */
export function ByWorkload({ workloads, service }: { workloads: readonly WorkloadHops[]; service: string }) {
  if (workloads.length < 2) return null;
  const longest = Math.max(...workloads.map(({ meanMs }) => meanMs), 1e-9);
  const rest = workloads.slice(WORKLOADS);
  return (
    <div class="by-workload">
      <h3>
        By the workload that served <span class="note">the slowest first, as callers see it</span>
      </h3>
      <ul>
        {workloads.slice(0, WORKLOADS).map(({ workload, requests, meanMs, segments }) => (
          <li key={workload} data-served={workload}>
            <a class="who" href={workloadHref(workload, service)}>
              {workload}
            </a>
            <span class="length">
              <span style={{ width: `${(meanMs / longest) * 100}%` }}>
                <HopBar segments={segments} />
              </span>
            </span>
            <span class="value">{latency(meanMs)}</span>
            <span class="note">{count(requests, "request")}</span>
          </li>
        ))}
      </ul>
      {rest.length > 0 && (
        <p class="note">
          and {rest.length} more, {latency(rest.at(-1)!.meanMs)} to {latency(rest[0]!.meanMs)}
        </p>
      )}
    </div>
  );
}

export function HopBar({ segments }: { segments: readonly Pick<HopSegment, "segment" | "meanMs" | "share">[] }) {
  return (
    <div class="hop-bar" role="img" aria-label={inWords(segments)}>
      {segments.map((segment) => (
        <span key={segment.segment} class={`hop ${segment.segment}`} style={{ flexGrow: segment.share }} title={tip(segment)} />
      ))}
    </div>
  );
}

function tip({ segment, meanMs, share }: Pick<HopSegment, "segment" | "meanMs" | "share">): string {
  const { label, about } = segmentWords(segment);
  return `${label}: ${latency(meanMs)}, ${percent(share)}${about && `\n${about}`}`;
}

export function HopKey({ segments }: { segments: readonly HopSegment[] }) {
  return (
    <TableFrame by="hops-title">
      <table class="hop-key">
        <thead>
          <tr>
            <th scope="col">Segment</th>
            <th scope="col" class="number">Share</th>
            <th scope="col" class="number">Mean</th>
            <th scope="col" class="number">p50</th>
            <th scope="col" class="number">p99</th>
            <th scope="col">What it is</th>
          </tr>
        </thead>
        <tbody>
          {segments.map((segment) => (
            <tr key={segment.segment} data-segment={segment.segment}>
              <th scope="row">
                <span class={`hop swatch ${segment.segment}`} aria-hidden="true" />
                {segmentWords(segment.segment).label}
              </th>
              <td class="number">{percent(segment.share)}</td>
              <td class="number">{latency(segment.meanMs)}</td>
              <td class="number">{latency(segment.p50Ms)}</td>
              <td class="number">{latency(segment.p99Ms)}</td>
              <td class="note">{segmentWords(segment.segment).about}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableFrame>
  );
}
