// Is it the application, the network or the mesh? A stacked bar of requests' way, and one for each edge.
import type { EdgeHops, Hops, HopSegment } from "../api/types";
import { count, latency, percent, serviceName } from "../format";
import { inWords, segmentWords, verdict } from "../hops";
import { serviceHref } from "../route";
import { EdgeLink } from "./parts";

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
            <p>
              <strong>To {serviceName(full).name}</strong>: {verdict(hops)} <span class="note">({count(hops.requests, "request")})</span>
            </p>
            <HopBar hops={hops} />
            <HopKey segments={hops.segments} />
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
                <HopBar hops={edge} />
                <span class="note">{verdict(edge)}</span>
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

export function HopBar({ hops }: { hops: Hops }) {
  return (
    <div class="hop-bar" role="img" aria-label={inWords(hops)}>
      {hops.segments.map((segment) => (
        <span key={segment.segment} class={`hop ${segment.segment}`} style={{ flexGrow: segment.share }} title={tip(segment)} />
      ))}
    </div>
  );
}

function tip({ segment, meanMs, share }: HopSegment): string {
  const { label, about } = segmentWords(segment);
  return `${label}: ${latency(meanMs)}, ${percent(share)}${about && `\n${about}`}`;
}

export function HopKey({ segments }: { segments: readonly HopSegment[] }) {
  return (
    <div class="table-frame" role="region" aria-labelledby="hops-title" tabIndex={0}>
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
    </div>
  );
}
