// Who calls, or is called, with figures of each edge.
import type { MeshEdge } from "../api/types";
import { repeatsInWords } from "../activity";
import { latency, rate, serviceName } from "../format";
import { serviceHref } from "../route";
import { isNode } from "../topology/graph";
import { refusedBy } from "../topology/table";
import { EdgeLink, Success, TableFrame, Transport } from "./parts";

export function EdgeTable({ title, edges, end, nobody }: { title: string; edges: MeshEdge[]; end: "from" | "to"; nobody: string }) {
  const id = `${end}-title`;
  return (
    <section aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {edges.length === 0 ? (
        <p class="quiet">{nobody}</p>
      ) : (
        <TableFrame by={id}>
          <table>
            <thead>
              <tr>
                <th scope="col">Service</th>
                <th scope="col">Transport</th>
                <th scope="col" class="number">Requests</th>
                <th scope="col" class="number">Success</th>
                <th scope="col" class="number">p99</th>
                <th scope="col">Repeated</th>
                <th scope="col">Refused</th>
                <th scope="col">
                  <span class="unseen">Page of the edge</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {edges.map((edge) => (
                <tr key={`${edge.from} ${edge.to} ${edge.backend ?? ""}`}>
                  <th scope="row">
                    {isNode(edge[end]) ? <a href={serviceHref(edge[end])}>{serviceName(edge[end]).name}</a> : edge[end]}
                    {edge.backend && edge.backend !== edge.to && <span class="namespace"> via {serviceName(edge.backend).name}</span>}
                  </th>
                  <td>
                    {isNode(edge[end]) ? <Transport edge={edge} /> : <span class="note">none</span>}
                  </td>
                  <td class="number">{rate(edge.rps)}</td>
                  <td class="number">
                    <Success {...edge} />
                  </td>
                  <td class="number">{latency(edge.p99Ms)}</td>
                  <td class="repeated">{repeatsInWords(edge.repeats) || <span class="note">none</span>}</td>
                  <td>{refusedBy(edge) || <span class="note">none</span>}</td>
                  <td>
                    {isNode(edge.from) && isNode(edge.to) && <EdgeLink edge={edge}>Edge</EdgeLink>}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </TableFrame>
      )}
    </section>
  );
}
