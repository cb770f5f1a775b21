// The server itself, and how every sidecar stands with it: streams, versions, configuration, clocks, leases.
import type { ControlPlane, Workload } from "../api/types";
import { Empty, HealthBadge, Saying, TableFrame, Tile, Time, WorkloadName } from "../components/parts";
import { count, latency, span } from "../format";
import { serviceHref } from "../route";
import { complaint, configurationOf, skewOf } from "../standing";
import { useResource } from "../state/resource";
import { useLive, useNow } from "../state/store";

export function ControlPlanePage() {
  const server = useResource<ControlPlane>("v1/mesh/control-plane");
  const workloads = useResource<Workload[]>("v1/mesh/workloads");
  const { clockOffsetMs } = useLive();
  const now = useNow() + clockOffsetMs;
  const fault = server.fault ?? workloads.fault;
  if (server.data === null || workloads.data === null) return <p class="waiting">{fault ?? "Loading…"}</p>;
  const name = ({ namespace, workload }: Workload) => `${namespace}/${workload}`;
  const all = [...workloads.data].sort((a, b) => name(a).localeCompare(name(b)));
  const connected = all.filter((workload) => workload.connected);
  const lost = all.filter((workload) => !workload.connected);
  return (
    <>
      <div class="page-head">
        <h1>Control plane</h1>
      </div>
      {fault && <p class="fault">{fault} What is shown is the last good answer.</p>}
      <Tiles server={server.data} all={all} now={now} />
      <Refused server={server.data} workloads={all} />
      <Sidecars sidecars={connected} version={server.data.version} now={now} />
      <Leases lost={lost} />
    </>
  );
}

function Tiles({ server, all, now }: { server: ControlPlane; all: Workload[]; now: number }) {
  const others = all.filter(({ version }) => version !== server.version).length;
  const waiting = all.filter(({ connected, waitingSinceMs }) => connected && waitingSinceMs != null).length;
  const connected = all.filter((workload) => workload.connected).length;
  return (
    <dl class="tiles">
      <Tile label="Version" note={others === 0 ? "sidecars the same" : `${count(others, "sidecar")} of another`}>
        {server.version}
      </Tile>
      <Tile label="Up for">{span(now - server.startedMs)}</Tile>
      <Tile label="Sidecars connected" note={`of ${count(all.length, "workload")}`}>
        {connected}
      </Tile>
      <Tile label="Configuration" note={waiting === 0 ? "by every sidecar" : count(waiting, "sidecar")}>
        {waiting === 0 ? "acknowledged" : "waiting"}
      </Tile>
      <Tile label="Store" note={`compiled in ${latency(server.compileMs)}`}>
        revision {server.storeRevision}
      </Tile>
    </dl>
  );
}

function Refused({ server, workloads }: { server: ControlPlane; workloads: Workload[] }) {
  const known = new Map(workloads.map((workload) => [workload.uid, workload]));
  const complaints = server.compileFaults.map(complaint);
  const none = complaints.length + server.refusedUpdates.length === 0;
  return (
    <section aria-labelledby="refused-title">
      <h2 id="refused-title">Refused configuration</h2>
      {none ? (
        <p class="quiet">
          <HealthBadge health="good" word="None." /> No document is wrong, and no sidecar refuses what it is sent.
        </p>
      ) : (
        <TableFrame by="refused-title">
          <table>
            <caption class="unseen">Refused configuration, with reasons</caption>
            <thead>
              <tr>
                <th scope="col">Of</th>
                <th scope="col">Reason</th>
                <th scope="col">Refused by</th>
                <th scope="col">Since</th>
              </tr>
            </thead>
            <tbody>
              {complaints.map(({ href, document, words }) => (
                <tr key={`${document} ${words}`} data-refused={document}>
                  <th scope="row">{href ? <a href={href}>{document}</a> : "a document"}</th>
                  <td class="why">{words}</td>
                  <td>the control plane</td>
                  <td>
                    <span class="note">not kept</span>
                  </td>
                </tr>
              ))}
              {server.refusedUpdates.map(({ uid, service, kind, reason, timeMs }) => (
                <tr key={`${uid} ${service} ${kind}`} data-refused={service}>
                  <th scope="row">
                    <a href={serviceHref(service)}>{service}</a> <span class="namespace">{kind}</span>
                  </th>
                  <td class="why">{reason}</td>
                  <td>the sidecar of {known.has(uid) ? <WorkloadName of={known.get(uid)!} /> : uid}</td>
                  <td>{timeMs == null ? <span class="note">not known</span> : <Time timeMs={timeMs} />}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </TableFrame>
      )}
    </section>
  );
}

function Sidecars({ sidecars, version, now }: { sidecars: Workload[]; version: string; now: number }) {
  return (
    <section aria-labelledby="sidecars-title">
      <h2 id="sidecars-title">Sidecars</h2>
      {sidecars.length === 0 ? (
        <Empty title="No sidecar is connected">
          <p>Those that were go on with what they have. To see some on this machine:</p>
          <pre>pillion demo</pre>
        </Empty>
      ) : (
        <TableFrame by="sidecars-title">
          <table class="sidecars">
            <caption class="unseen">Connected sidecars</caption>
            <thead>
              <tr>
                <th scope="col">Workload</th>
                <th scope="col">Configuration</th>
                <th scope="col">Version</th>
                <th scope="col">Connected</th>
                <th scope="col">Clock</th>
                <th scope="col" class="number">Subscribed</th>
              </tr>
            </thead>
            <tbody>
              {sidecars.map((sidecar) => (
                <tr key={sidecar.uid} data-sidecar={sidecar.workload}>
                  <th scope="row" title={sidecar.uid}>
                    <WorkloadName of={sidecar} />
                  </th>
                  <td>
                    <Saying said={configurationOf(sidecar, now)} />
                  </td>
                  <td>
                    <Saying said={{ health: sidecar.version === version ? "idle" : "degraded", word: sidecar.version }} />
                  </td>
                  <td>{sidecar.connectedMs == null ? <span class="note">not known</span> : <Time timeMs={sidecar.connectedMs} />}</td>
                  <td class="clock">
                    <Saying said={skewOf(sidecar.clockSkewMs)} />
                  </td>
                  <td class="number">{count(sidecar.subscriptions, "service")}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </TableFrame>
      )}
    </section>
  );
}

function Leases({ lost }: { lost: Workload[] }) {
  return (
    <section aria-labelledby="leases-title">
      <h2 id="leases-title">Leases without a stream</h2>
      {lost.length === 0 ? (
        <p class="quiet">
          <HealthBadge health="good" word="None." /> Every registered workload has its stream.
        </p>
      ) : (
        <TableFrame by="leases-title">
          <table>
            <caption class="unseen">Workloads whose sidecars have lost their streams</caption>
            <thead>
              <tr>
                <th scope="col">Workload</th>
                <th scope="col">Stream lost</th>
                <th scope="col">Lease ends</th>
                <th scope="col">Version</th>
              </tr>
            </thead>
            <tbody>
              {lost.map(({ uid, workload, namespace, service, connectedMs, leaseEndsMs, version }) => (
                <tr key={uid} data-lease={workload}>
                  <th scope="row" title={uid}>
                    <WorkloadName of={{ workload, namespace, service }} />
                  </th>
                  <td>{connectedMs == null ? <span class="note">not known</span> : <Time timeMs={connectedMs} />}</td>
                  <td>{leaseEndsMs == null ? <span class="note">not known</span> : <Time timeMs={leaseEndsMs} />}</td>
                  <td>{version}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </TableFrame>
      )}
    </section>
  );
}
