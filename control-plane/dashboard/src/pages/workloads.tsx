// Who is in the mesh: identities, certificates, connections to the control plane, and what sidecars refused.
import type { Workload } from "../api/types";
import { Empty, HealthBadge, TableFrame, Time, WorkloadName } from "../components/parts";
import { count, relative, serviceName } from "../format";
import type { Health } from "../health";
import { serviceHref } from "../route";
import { useResource } from "../state/resource";
import { useLive, useNow } from "../state/store";

export function WorkloadsPage() {
  const { data, fault } = useResource<Workload[]>("v1/mesh/workloads");
  if (data === null) return <p class="waiting">{fault ?? "Loading…"}</p>;
  const versions = [...new Set(data.map((workload) => workload.version))].sort();
  const disconnected = data.filter((workload) => !workload.connected).length;
  const rows = [...data].sort((a, b) => a.namespace.localeCompare(b.namespace) || a.workload.localeCompare(b.workload));
  return (
    <>
      <div class="page-head">
        <h1>Workloads</h1>
      </div>
      {fault && <p class="fault">{fault} What is shown is the last good answer.</p>}
      {data.length === 0 ? (
        <Empty title="No workload has joined yet">
          <p>A workload joins when its sidecar starts with a join token. To see some on this machine:</p>
          <pre>pillion demo</pre>
        </Empty>
      ) : (
        <>
          <p class="quiet">
            {count(data.length, "workload")}, {disconnected === 0 ? "all connected" : `${disconnected} not connected`};{" "}
            {versions.length === 1 ? `sidecars of version ${versions[0]}` : `sidecars of ${versions.length} versions: ${versions.join(", ")}`}
          </p>
          <TableFrame label="Workloads">
            <table class="workloads">
              <thead>
                <tr>
                  <th scope="col">Workload</th>
                  <th scope="col">Service</th>
                  <th scope="col">State</th>
                  <th scope="col">Control plane</th>
                  <th scope="col">Certificate</th>
                  <th scope="col">Identity</th>
                  <th scope="col">Address</th>
                  <th scope="col" class="number">Subscribed</th>
                  <th scope="col">Version</th>
                </tr>
              </thead>
              <tbody>
                {rows.map((workload) => (
                  <Row key={workload.uid} workload={workload} />
                ))}
              </tbody>
            </table>
          </TableFrame>
        </>
      )}
    </>
  );
}

function Row({ workload }: { workload: Workload }) {
  return (
    <tr data-workload={workload.workload}>
      <th scope="row" title={workload.uid}>
        <WorkloadName of={workload} />
      </th>
      <td>
        {workload.service ? <a href={serviceHref(workload.service)}>{serviceName(workload.service).name}</a> : <span class="note">none</span>}
      </td>
      <td>
        <HealthBadge health={workload.ready ? "good" : "failing"} word={workload.ready ? "ready" : "not ready"} />
        {!workload.ready && workload.reason && <div class="note">{workload.reason}</div>}
        {workload.refusedUpdates.map((refusal) => (
          <div class="fault" key={`${refusal.service} ${refusal.kind}`}>
            refused {refusal.kind.toLowerCase()} of {refusal.service}: {refusal.reason}
          </div>
        ))}
      </td>
      <td>
        {workload.connected ? (
          <>
            connected
            {workload.connectedMs != null && (
              <div class="note">
                <Time timeMs={workload.connectedMs} />
              </div>
            )}
          </>
        ) : (
          <>
            <HealthBadge health="degraded" word="not connected" />
            {workload.connectedMs != null && (
              <div class="note">
                lost <Time timeMs={workload.connectedMs} />
              </div>
            )}
          </>
        )}
      </td>
      <td class="certificate">
        <Certificate notAfterMs={workload.certificateNotAfterMs ?? null} />
        <div class="note">
          {workload.certificatesRenewed === 0 ? "not renewed yet" : `renewed ${workload.certificatesRenewed}×`}
        </div>
      </td>
      <td class="identity">{workload.spiffeId}</td>
      <td class="address">{workload.address}</td>
      <td class="number">{count(workload.subscriptions, "service")}</td>
      <td>{workload.version}</td>
    </tr>
  );
}

/** An expired certificate fails; one about to is renewed long before, unless something is wrong. */
function Certificate({ notAfterMs }: { notAfterMs: number | null }) {
  const { clockOffsetMs } = useLive();
  const now = useNow() + clockOffsetMs;
  if (!notAfterMs) return <span class="note">not reported</span>;
  const health: Health = notAfterMs <= now ? "failing" : "good";
  if (health === "failing") return <HealthBadge health={health} word={`expired ${relative(notAfterMs, now)}`} />;
  return (
    <>
      expires <Time timeMs={notAfterMs} />
    </>
  );
}
