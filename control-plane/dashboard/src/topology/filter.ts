// What of the mesh is shown: what is laid out, what of that is hidden in its place, and what stands out from the rest.
import type { Health } from "../health";
import type { MeshParameters } from "../route";
import type { Graph, GraphNode } from "./graph";

export interface Shown {
  /** Of the chosen namespace, or around the isolated service: what has a place. Depends on names only. */
  graph: Graph;
  /** Nodes and edges that a filter by health takes away. The others stay where they are: health changes, places don't. */
  hidden: ReadonlySet<string>;
  /** Nodes and edges that stand out; `null`: none does. */
  lit: ReadonlySet<string> | null;
}

const NOTHING: ReadonlySet<string> = new Set();

export function shownOf(whole: Graph, wanted: MeshParameters): Shown {
  const graph = placedOf(whole, wanted);
  return {
    graph,
    hidden: wanted.onlyUnhealthy ? wellOf(graph) : NOTHING,
    lit: wanted.search.trim() !== "" ? found(graph, wanted.search) : wanted.focus !== "" && !wanted.isolated ? neighbours(graph, wanted.focus) : null,
  };
}

/** A graph without what is hidden, as the table lists it; of a search only what was found. */
export function listed({ graph, hidden, lit }: Shown): Graph {
  const stays = (id: string) => !hidden.has(id) && (lit === null || lit.has(id));
  return { nodes: graph.nodes.filter(({ id }) => stays(id)), edges: graph.edges.filter(({ id }) => stays(id)) };
}

function placedOf(graph: Graph, { namespace, focus, isolated }: MeshParameters): Graph {
  if (isolated && graph.nodes.some(({ id }) => id === focus)) {
    const near = neighbours(graph, focus);
    return { nodes: graph.nodes.filter(({ id }) => near.has(id)), edges: graph.edges.filter(({ id }) => near.has(id)) };
  }
  if (namespace === "") return graph;
  const nodes = graph.nodes.filter((node) => node.namespace === namespace);
  const inside = new Set(nodes.map(({ id }) => id));
  return { nodes, edges: graph.edges.filter(({ from, to }) => inside.has(from) && inside.has(to)) };
}

/** Everything that nobody has to look at: healthy services between which all is well. */
function wellOf(graph: Graph): Set<string> {
  const ill = (health: Health) => health === "failing" || health === "degraded";
  const edges = graph.edges.filter((edge) => ill(edge.health));
  const kept = new Set(edges.flatMap(({ id, from, to }) => [id, from, to]));
  for (const node of graph.nodes) if (ill(node.health)) kept.add(node.id);
  return new Set([...graph.nodes, ...graph.edges].map(({ id }) => id).filter((id) => !kept.has(id)));
}

/** Services that match what is searched for, best first: those whose name begins with it. */
export function matches(nodes: readonly GraphNode[], search: string): GraphNode[] {
  const text = search.trim().toLowerCase();
  if (text === "") return [];
  const rank = ({ name, id }: GraphNode) => (name === text ? 0 : name.startsWith(text) ? 1 : name.includes(text) ? 2 : id.includes(text) ? 3 : 4);
  return nodes.map((node) => ({ node, rank: rank(node) })).filter(({ rank }) => rank < 4).sort((a, b) => a.rank - b.rank).map(({ node }) => node);
}

function found(graph: Graph, search: string): Set<string> {
  const lit = new Set(matches(graph.nodes, search).map(({ id }) => id));
  for (const { id, from, to } of graph.edges) if (lit.has(from) && lit.has(to)) lit.add(id);
  return lit;
}

/** It, its edges, and what is at their other ends. */
export function neighbours(graph: Graph, id: string): Set<string> {
  const near = new Set([id]);
  for (const edge of graph.edges) {
    if (edge.from === id || edge.to === id) near.add(edge.id).add(edge.from).add(edge.to);
  }
  return near;
}

export function namespacesOf(graph: Graph): string[] {
  return [...new Set(graph.nodes.map(({ namespace }) => namespace))].sort();
}
