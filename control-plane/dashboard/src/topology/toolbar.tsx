// Above the map and the table: what is searched for, which namespace, and whether the healthy are left out. All of it stands in the
// address.
import { useEffect, useRef, useState } from "preact/hooks";
import { count, serviceName } from "../format";
import { type MeshParameters, go, meshHref, serviceHref } from "../route";
import { type Shown, listed, matches } from "./filter";
import type { Graph } from "./graph";

export interface ToolbarProps {
  parameters: MeshParameters;
  /** All of the mesh. */
  graph: Graph;
  shown: Shown;
  namespaces: readonly string[];
}

export function Toolbar({ parameters, graph, shown, namespaces }: ToolbarProps) {
  const { search, namespace, onlyUnhealthy, focus, isolated } = parameters;
  const input = useRef<HTMLInputElement>(null);
  const change = (wanted: Partial<MeshParameters>, quietly = false) => go(meshHref({ ...parameters, ...wanted }), quietly);
  const found = matches(shown.graph.nodes, search);
  // The address follows a moment after each key: what is being typed must not be overwritten by what it still says.
  const [text, setText] = useState(search);
  useEffect(() => {
    if (document.activeElement !== input.current) setText(search);
  }, [search]);

  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      const inField = event.target instanceof HTMLElement && event.target.matches("input, textarea, select");
      if (event.key !== "/" || inField || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      input.current?.focus();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);

  return (
    <div class="toolbar" role="search" aria-label="Services">
      <input
        ref={input}
        type="search"
        value={text}
        placeholder="Find a service  /"
        aria-label="Find a service"
        autocomplete="off"
        spellcheck={false}
        onInput={(event) => {
          setText(event.currentTarget.value);
          change({ search: event.currentTarget.value }, true);
        }}
        onKeyDown={(event) => {
          const first = matches(shown.graph.nodes, text)[0];
          if (event.key === "Enter" ? first === undefined : event.key !== "Escape") return;
          setText("");
          if (event.key === "Enter") change({ search: "", focus: first!.id });
          else change({ search: "", focus: "", isolated: false }, true);
        }}
      />
      {namespaces.length > 1 && (
        <select aria-label="Namespace" value={namespace} onChange={(event) => change({ namespace: event.currentTarget.value, focus: "", isolated: false })}>
          <option value="">All namespaces</option>
          {namespaces.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
      )}
      <div class="switch">
        <button type="button" aria-pressed={onlyUnhealthy} onClick={() => change({ onlyUnhealthy: !onlyUnhealthy })}>
          Only unhealthy
        </button>
      </div>
      {focus !== "" && (
        <div class="focus">
          <a href={serviceHref(focus)}>{serviceName(focus).name}</a>
          <div class="switch">
            <button type="button" aria-pressed={isolated} onClick={() => change({ isolated: !isolated })}>
              Only its calls
            </button>
            <button type="button" aria-label="Look at all again" title="Look at all again" onClick={() => change({ focus: "", isolated: false })}>
              ×
            </button>
          </div>
        </div>
      )}
      <p class="note" role="status">
        {inWords(parameters, graph, shown, found.length)}
      </p>
    </div>
  );
}

function inWords({ search, onlyUnhealthy, focus }: MeshParameters, graph: Graph, shown: Shown, found: number): string {
  if (search.trim() !== "") return found === 0 ? "none found" : `${count(found, "service")} found; Enter looks at the first`;
  if (focus !== "" && !graph.nodes.some(({ id }) => id === focus)) return `the mesh knows no ${focus}`;
  const nodes = onlyUnhealthy ? listed({ ...shown, lit: null }).nodes.length : shown.graph.nodes.length;
  if (onlyUnhealthy && nodes === 0) return "all is well";
  const of = nodes === graph.nodes.length ? "" : ` of ${graph.nodes.length}`;
  return `${nodes}${of} ${graph.nodes.length === 1 ? "service" : "services"}, ${count(shown.graph.edges.length, "edge")}`;
}
