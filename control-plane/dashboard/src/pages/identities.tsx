// Who everybody proves to be and for how long still, under which roots, and who is called without any proof.
import type { ControlPlane, TrustAnchor, Workload } from "../api/types";
import { type OpenEdge, anchorHealth, leafHealth, lifeOf, openEdges, remaining, short, soonestFirst } from "../certificates";
import { Empty, HealthBadge, Saying, TableFrame, Time } from "../components/parts";
import { Lock } from "../components/icons";
import { count, exact, rate, span } from "../format";
import type { Health } from "../health";
import { edgeHref } from "../route";
import { useResource } from "../state/resource";
import { useLive, useNow } from "../state/store";
import { isNode } from "../topology/graph";

export function IdentitiesPage() {
  const workloads = useResource<Workload[]>("v1/mesh/workloads");
  const server = useResource<ControlPlane>("v1/mesh/control-plane");
  const { mesh, clockOffsetMs } = useLive();
  const now = useNow() + clockOffsetMs;
  const fault = workloads.fault ?? server.fault;
  if (workloads.data === null || server.data === null) return <p class="waiting">{fault ?? "Loading…"}</p>;
  return (
    <>
      <div class="page-head">
        <h1>
          Identities <span class="subject">{server.data.trustDomain}</span>
        </h1>
      </div>
      {fault && <p class="fault">{fault} What is shown is the last good answer.</p>}
      {mesh !== null && <OpenEdges edges={openEdges(mesh.services, mesh.edges)} />}
      <Certificates workloads={workloads.data} server={server.data} now={now} />
      <Anchors server={server.data} now={now} />
    </>
  );
}

const WHY: Record<OpenEdge["why"], string> = {
  "no-sidecar": "The caller has no sidecar: give it one.",
  "past-sidecar": "The caller has a sidecar, and its requests go past it: lead them through it.",
  leaves: "What is called has no sidecar: it is outside of the mesh.",
};

function OpenEdges({ edges }: { edges: OpenEdge[] }) {
  const inward = edges.filter(({ why }) => why !== "leaves").length;
  return (
    <section aria-labelledby="open-title" data-open-edges={edges.length}>
      <h2 id="open-title">Unmeshed or plaintext edges</h2>
      {edges.length === 0 ? (
        <p class="quiet">
          <HealthBadge health="good" word="None." /> All calls of the last minutes were mutual TLS from sidecar to sidecar.
        </p>
      ) : (
        <>
          <p class="quiet">
            {inward > 0 ? (
              <HealthBadge health="degraded" word={`${count(inward, "edge")} into the mesh in plaintext.`} />
            ) : (
              "Nothing comes into the mesh in plaintext; this leaves it."
            )}
          </p>
          <TableFrame by="open-title">
            <table>
              <caption class="unseen">Unmeshed and plaintext edges</caption>
              <thead>
                <tr>
                  <th scope="col">Edge</th>
                  <th scope="col">Transport</th>
                  <th scope="col" class="number">Requests</th>
                  <th scope="col">Why</th>
                </tr>
              </thead>
              <tbody>
                {edges.map(({ from, to, rps, why }) => (
                  <tr key={`${from} ${to}`}>
                    <th scope="row">
                      {isNode(from) ? <a href={edgeHref(from, to)}>{`${from} → ${to}`}</a> : `${from} → ${to}`}
                    </th>
                    <td>
                      <span class={`transport ${why === "leaves" ? "" : "plaintext"}`}>
                        <Lock closed={false} />
                        {why === "leaves" ? "not the mesh's TLS" : "plaintext"}
                      </span>
                    </td>
                    <td class="number">{rate(rps)}</td>
                    <td class="why">{WHY[why]}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </TableFrame>
        </>
      )}
    </section>
  );
}

interface CertificatesProps {
  workloads: Workload[];
  server: ControlPlane;
  now: number;
}

function Certificates({ workloads, server, now }: CertificatesProps) {
  const anchor = server.trustAnchors.length === 1 ? server.trustAnchors[0] : undefined;
  return (
    <section aria-labelledby="certificates-title">
      <h2 id="certificates-title">Certificates of workloads</h2>
      {workloads.length === 0 ? (
        <Empty title="No workload has an identity yet">
          <p>A workload gets one when its sidecar starts with a join token. To see some on this machine:</p>
          <pre>pillion demo</pre>
        </Empty>
      ) : (
        <>
          <p class="quiet">
            The soonest to end first. New ones live for {span(server.leafTtlSeconds * 1000)}, and sidecars renew them at half of that.
          </p>
          <TableFrame by="certificates-title">
            <table class="identities">
              <caption class="unseen">Certificates, the soonest to end first</caption>
              <thead>
                <tr>
                  <th scope="col">Workload</th>
                  <th scope="col">Ends in</th>
                  <th scope="col">SPIFFE id</th>
                  <th scope="col">Last rotation</th>
                  <th scope="col">Root</th>
                </tr>
              </thead>
              <tbody>
                {soonestFirst(workloads).map((workload) => {
                  const { issuedMs, lifeMs } = lifeOf(workload, server.leafTtlSeconds * 1000);
                  return (
                    <tr key={workload.uid} data-identity={workload.workload}>
                      <th scope="row" title={workload.uid}>
                        {workload.workload} <span class="namespace">{workload.namespace}</span>
                      </th>
                      <td>
                        <Left endMs={workload.certificateNotAfterMs ?? null} now={now} health={(left) => leafHealth(left, lifeMs)} />
                      </td>
                      <td class="identity">{workload.spiffeId}</td>
                      <td class="rotated">
                        {issuedMs === null ? <span class="note">not reported</span> : <Time timeMs={issuedMs} />}
                        <div class="note">
                          {workload.certificatesRenewed === 0 ? "first of its sidecar" : `renewed ${workload.certificatesRenewed}×`}
                        </div>
                      </td>
                      <td>
                        {/* A sidecar whose stream is open has proved itself under the one root that there is. */}
                        {anchor && workload.connected ? (
                          <span class="address" title={anchor.fingerprint}>{short(anchor.fingerprint)}</span>
                        ) : (
                          <span class="note">not known</span>
                        )}
                      </td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </TableFrame>
        </>
      )}
    </section>
  );
}

function Anchors({ server, now }: { server: ControlPlane; now: number }) {
  const anchors: readonly TrustAnchor[] = server.trustAnchors;
  const first = Math.min(...anchors.map(({ notAfterMs }) => notAfterMs));
  return (
    <section aria-labelledby="anchors-title">
      <h2 id="anchors-title">Trust anchors</h2>
      <p class="quiet">
        {anchors.length > 1 ? (
          <HealthBadge health="degraded" word={`The root is being replaced: ${anchors.length} are trusted.`} />
        ) : (
          "One root; none is being replaced."
        )}
        {server.authorityNotAfterMs < first && (
          <>
            {" "}
            The authority that signs under it ends sooner, <Time timeMs={server.authorityNotAfterMs} />.
          </>
        )}
      </p>
      <TableFrame by="anchors-title">
        <table>
          <caption class="unseen">Roots that workloads trust</caption>
          <thead>
            <tr>
              <th scope="col">Ends in</th>
              <th scope="col">SHA-256 of its certificate</th>
              <th scope="col">Ends on</th>
            </tr>
          </thead>
          <tbody>
            {anchors.map(({ fingerprint, notAfterMs }) => (
              <tr key={fingerprint} data-anchor={fingerprint}>
                <td>
                  <Left endMs={notAfterMs} now={now} health={anchorHealth} />
                </td>
                <td class="identity fingerprint">{fingerprint}</td>
                <td class="on">{exact(notAfterMs)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </TableFrame>
    </section>
  );
}

/** How long something lasts still; said with a shape where that is little. */
function Left({ endMs, now, health: judge }: { endMs: number | null; now: number; health: (leftMs: number) => Health }) {
  if (endMs === null) return <span class="note">not reported</span>;
  const left = endMs - now;
  const health = judge(left);
  const word = left > 0 ? remaining(left) : `ended ${span(-left)} ago`;
  return (
    <time dateTime={new Date(endMs).toISOString()} title={exact(endMs)}>
      <Saying said={{ health, word }} />
    </time>
  );
}
