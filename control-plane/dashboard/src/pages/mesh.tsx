// The first page: the whole mesh at a glance, as a map or as tables, and what happened last.
import { useMemo } from "preact/hooks";
import type { Mesh, MeshEdge } from "../api/types";
import { EventList } from "../components/events";
import { Faults } from "../components/faults";
import { Empty, Success, Tile } from "../components/parts";
import { RangeControl } from "../components/range";
import { NOTHING, count, rate } from "../format";
import { type MeshParameters, type Range, go, meshHref } from "../route";
import type { Live } from "../state/live";
import { useResource } from "../state/resource";
import { useLive } from "../state/store";
import { listed, namespacesOf, shownOf } from "../topology/filter";
import { type Graph, type GraphNode, graphOf, isNode, merge } from "../topology/graph";
import { MapKey, TopologyMap } from "../topology/map";
import { TopologyTable, refused } from "../topology/table";
import { Toolbar } from "../topology/toolbar";

const LATEST_EVENTS = 6;
/** Services that are named where there is little room. */
const NAMED = 3;

export interface MeshPageProps {
  parameters: MeshParameters;
  range: Range;
}

export function MeshPage({ parameters, range }: MeshPageProps) {
  return range.until === null ? <Now parameters={parameters} range={range} /> : <Then parameters={parameters} range={range} until={range.until} />;
}

function Now({ parameters, range }: MeshPageProps) {
  const live = useLive();
  const edges = useMemo(() => [...live.edges.values()].map(({ edge }) => edge), [live.edges]);
  return <Whole mesh={live.mesh} edges={edges} live={live} parameters={parameters} range={range} waiting="Waiting for the control plane…" />;
}

/** The mesh as it was at a moment. */
function Then({ parameters, range, until }: MeshPageProps & { until: number }) {
  const live = useLive();
  const { data, fault } = useResource<Mesh>(`v1/mesh?until=${until}`, "mesh", true);
  return <Whole mesh={data} edges={data?.edges ?? []} live={live} parameters={parameters} range={range} waiting={fault ?? "Loading…"} />;
}

interface WholeProps extends MeshPageProps {
  mesh: Mesh | null;
  edges: MeshEdge[];
  live: Live;
  waiting: string;
}

function Whole({ mesh, edges, live, parameters, range, waiting }: WholeProps) {
  const { view } = parameters;
  const graph = useMemo(() => graphOf(mesh?.services ?? [], edges), [mesh, edges]);
  // Renewals are routine, and with many workloads there are enough of them to hide the rest.
  const latest = live.events.filter((event) => event.kind !== "certificate-renewed").slice(0, LATEST_EVENTS);
  if (mesh === null) return <p class="waiting">{waiting}</p>;

  return (
    <>
      <div class="page-head">
        <h1>
          Mesh <span class="subject">{mesh.trustDomain}</span>
        </h1>
        <RangeControl range={range} to={(wanted) => meshHref(parameters, wanted)} spans={false} />
        <div class="switch" role="group" aria-label="View">
          <a href={meshHref({ ...parameters, view: "map" })} aria-current={view === "map" ? "true" : undefined}>
            Map
          </a>
          <a href={meshHref({ ...parameters, view: "table" })} aria-current={view === "table" ? "true" : undefined}>
            Table
          </a>
        </div>
      </div>
      <Faults faults={mesh.faults ?? []} />
      {graph.nodes.length === 0 ? <NothingYet /> : <Overview mesh={mesh} rates={live.rates} graph={graph} parameters={parameters} />}
      <section class="latest" aria-labelledby="latest-title">
        <div class="section-head">
          <h2 id="latest-title">
            Latest events <span class="note">without certificate renewals</span>
          </h2>
          <a href="#/events">All events</a>
        </div>
        {latest.length === 0 ? (
          <p class="quiet">Nothing happened since the control plane started.</p>
        ) : (
          <EventList events={latest} />
        )}
      </section>
    </>
  );
}

interface OverviewProps {
  mesh: Mesh;
  rates: Live["rates"];
  graph: Graph;
  parameters: MeshParameters;
}

function Overview({ mesh, rates, graph, parameters }: OverviewProps) {
  const calls = graph.edges.filter((edge) => edge.kind === "call");
  const all = merge(calls.map((edge) => edge.figures));
  const sent = calls.filter((edge) => edge.mtls !== "unsent").length;
  const secured = calls.filter((edge) => edge.mtls === "all").length;
  // Endpoints can't be added up: one may belong to a service and to a backend of it.
  const manned = graph.nodes.filter((node) => node.instances > 0);
  const faulty = new Set(mesh.faults?.map((fault) => fault.service));
  const ready = manned.filter((node) => node.ready === node.instances).length;
  const shown = useMemo(() => shownOf(graph, parameters), [graph, JSON.stringify(parameters)]);
  const namespaces = namespacesOf(graph);
  return (
    <>
      <dl class="tiles">
        <Tile label="Requests between services" note={`last ${mesh.window.seconds} s`}>
          {rate(all.rps)}
        </Tile>
        <Tile label="Success">
          <Success {...all} />
        </Tile>
        <Tile label="Need attention" note={attention(graph.nodes)}>
          {count(troubled(graph.nodes).length, "service")}
        </Tile>
        <Tile label="Mutual TLS" note={sent === 0 ? "no calls yet" : secured < sent ? `${sent - secured} not fully encrypted` : "every call"}>
          {sent === 0 ? NOTHING : `${secured} of ${count(sent, "edge")}`}
        </Tile>
        <Tile label="All endpoints ready" note={manned.length === 0 ? "no workload has joined" : null}>
          {manned.length === 0 ? NOTHING : `${ready} of ${count(manned.length, "service")}`}
        </Tile>
      </dl>
      <Unattributed edges={mesh.edges} />
      <Toolbar parameters={parameters} graph={graph} shown={shown} namespaces={namespaces} />
      {parameters.view === "map" ? (
        <>
          <TopologyMap
            shown={shown}
            namespaces={namespaces}
            rates={rates}
            faulty={faulty}
            focus={parameters.focus}
            leave={() => go(meshHref({ ...parameters, focus: "", search: "" }), true)}
          />
          <MapKey />
        </>
      ) : (
        <TopologyTable graph={listed(shown)} faulty={faulty} />
      )}
    </>
  );
}

/** What sidecars refuse before they know where it should go: on no edge of the map, and not to be overlooked. */
function Unattributed({ edges }: { edges: MeshEdge[] }) {
  const lost = edges.filter((edge) => !isNode(edge.to) && refused(edge.refusals) !== "");
  if (lost.length === 0) return null;
  return (
    <p class="fault">
      Refused before the destination was known: {lost.map((edge) => `${edge.from}, ${refused(edge.refusals)}`).join("; ")}
    </p>
  );
}

function troubled(nodes: GraphNode[]): GraphNode[] {
  return nodes.filter((node) => node.health === "failing" || node.health === "degraded");
}

/** Who needs attention, or what else is to be known. */
function attention(nodes: GraphNode[]): string {
  const named = troubled(nodes).map((node) => node.name);
  if (named.length > NAMED) return `${named.slice(0, NAMED).join(", ")} and ${named.length - NAMED} more`;
  if (named.length > 0) return named.join(", ");
  const unmanned = nodes.filter((node) => node.kind === "service" && node.instances === 0).length;
  return unmanned > 0 ? `${unmanned} without endpoints` : "all well";
}

function NothingYet() {
  return (
    <Empty title="No workload has joined this mesh yet">
      <p>To see a mesh with real traffic on this machine:</p>
      <pre>pillion demo</pre>
      <p>To build your own, describe a service, then start its sidecar with a join token:</p>
      <pre>{`pillion apply -f service.yaml
pillion token create --namespace default --service-account web
pillion-proxy --workload web-1 --join-token …`}</pre>
    </Empty>
  );
}
