// One request, told in full.
import type { ComponentChildren } from "preact";
import type { TapEvent } from "../../api/tap";
import { HopBar } from "../../components/hops";
import { Transport } from "../../components/parts";
import { exact, latency, percent } from "../../format";
import { segmentWords } from "../../hops";
import { serviceHref, workloadHref } from "../../route";
import { hopsOf, outcome } from "./words";

export function Chosen({ request, close }: { request: TapEvent; close: () => void }) {
  const { from, to, backend, workload, sidecar, namespace, direction, method, path } = request;
  const hops = hopsOf(request);
  return (
    <section class="live-chosen" aria-labelledby="chosen-title">
      <div class="section-head">
        <h2 id="chosen-title">
          {method} {path}
        </h2>
        <button type="button" onClick={close}>
          Close
        </button>
      </div>
      <dl class="facts">
        <Fact label="Outcome">
          {outcome(request)} after {latency(request.durationMs)}
          {(request.attempts ?? 0) > 1 && `, sent ${request.attempts} times`}
        </Fact>
        <Fact label="From">{named(from)}</Fact>
        <Fact label="To">
          {named(to)}
          {backend && <> by way of {named(backend)}</>}
          {workload && (
            <>
              , served by <a href={workloadHref(workload, backend ?? to)}>{workload}</a>
            </>
          )}
        </Fact>
        <Fact label="Told by">
          the sidecar of{" "}
          <a href={workloadHref(sidecar, direction === "outbound" ? from : (backend ?? to))}>
            {sidecar}.{namespace}
          </a>
          , {direction}
        </Fact>
        <Fact label="Transport">
          <Transport edge={{ mtls: request.mtls ?? null, tlsVersion: null }} />
        </Fact>
        {request.peerIdentity && (
          <Fact label="Peer">
            <code>{request.peerIdentity}</code>
          </Fact>
        )}
        {request.route && (
          <Fact label="Route">
            {request.route}, rule {request.rule}
          </Fact>
        )}
        <Fact label="Began">{exact(request.timeMs)}</Fact>
        {request.headers?.map(({ name, value }) => (
          <Fact key={name} label={name}>
            <code>{value}</code>
          </Fact>
        ))}
      </dl>
      {hops.segments.length > 0 && (
        <>
          <HopBar segments={hops.segments} />
          <ul class="live-split">
            {hops.segments.map(({ segment, meanMs, share }) => (
              <li key={segment}>
                <span class={`hop swatch ${segment}`} aria-hidden="true" />
                {segmentWords(segment).label} <strong>{latency(meanMs)}</strong> <span class="note">{percent(share)}</span>
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}

function Fact({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{label}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** What is no service or workload of the mesh has no page. */
function named(name: string) {
  return name.includes(".") ? <a href={serviceHref(name)}>{name}</a> : name;
}
