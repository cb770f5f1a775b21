// Which page each address means: the one place to put a new page in. What has a label stands in the navigation, in this order.
import type { ComponentChildren } from "preact";
import { type Address, address, beginningOf, editHref, meshHref, meshParameters, newHref, questionOf, rangeOf, workloadOf } from "../route";
import { ControlPlanePage } from "./control-plane";
import { DocumentPage } from "./document";
import { EdgePage } from "./edge";
import { EditPage } from "./edit/edit";
import { EventsPage } from "./events";
import { ExplainPage } from "./explain";
import { IdentitiesPage } from "./identities";
import { LivePage } from "./live/live";
import { watchOf } from "./live/watch";
import { MeshPage } from "./mesh";
import { ServicePage } from "./service";
import { WorkloadsPage } from "./workloads";

export interface PageEntry {
  id: string;
  /** Of its link in the navigation. Without one it is reached from other pages. */
  label?: string;
  /** The entry of the navigation that is marked while this one is shown, if not its own. */
  under?: string;
  /** Where the link leads. */
  href: () => string;
  /** It shows what a token of one namespace may see, too; else it needs one for all. */
  inNamespace?: true;
  /** The page if the address is one of this entry's, else `null`. */
  open: (address: Address) => Page | null;
}

export interface Page {
  title: string;
  view: ComponentChildren;
}

export const PAGES: readonly PageEntry[] = [
  {
    id: "mesh",
    label: "Mesh",
    href: () => meshHref(),
    open: (address) => (address.parts.length === 0 ? { title: "Mesh", view: <MeshPage parameters={meshParameters(address)} range={rangeOf(address)} /> } : null),
  },
  {
    id: "service",
    under: "mesh",
    href: () => meshHref(),
    open: (address) => {
      const [page, namespace, name] = address.parts;
      if (page !== "services" || !namespace || !name || address.parts.length !== 3) return null;
      return { title: `${name}.${namespace}`, view: <ServicePage namespace={namespace} name={name} range={rangeOf(address)} marked={workloadOf(address)} /> };
    },
  },
  {
    id: "edge",
    under: "mesh",
    href: () => meshHref(),
    open: (address) => {
      const [page, from, to] = address.parts;
      if (page !== "edges" || !from || !to || address.parts.length !== 3) return null;
      return { title: `${from} → ${to}`, view: <EdgePage from={from} to={to} range={rangeOf(address)} /> };
    },
  },
  {
    id: "document",
    under: "mesh",
    inNamespace: true,
    href: () => meshHref(),
    open: (address) => {
      const [page, plural, namespace, name] = address.parts;
      if (page !== "documents" || !plural || !namespace || !name || address.parts.length !== 4) return null;
      return { title: `${namespace}/${name}`, view: <DocumentPage plural={plural} namespace={namespace} name={name} /> };
    },
  },
  simple("workloads", "Workloads", () => <WorkloadsPage />),
  simple("events", "Events", () => <EventsPage />),
  { ...simple("live", "Live", ({ query }) => <LivePage watch={watchOf(query)} />), inNamespace: true },
  simple("identities", "Identities", () => <IdentitiesPage />),
  simple("control-plane", "Control plane", () => <ControlPlanePage />),
  simple("explain", "Explain", (address) => <ExplainPage question={questionOf(address)} />),
  {
    id: "edit",
    label: "Apply",
    inNamespace: true,
    href: () => newHref(),
    open: (asked) => {
      const [page, namespace, plural, name] = asked.parts;
      if (page !== "edit") return null;
      if (asked.parts.length === 1) {
        const beginning = beginningOf(asked);
        return { title: "Apply", view: <EditPage at={newHref(beginning)} stored={null} {...beginning} /> };
      }
      if (!namespace || !plural || !name || asked.parts.length !== 4) return null;
      return { title: `Edit ${namespace}/${name}`, view: <EditPage at={editHref(plural, namespace, name)} stored={{ plural, namespace, name }} kind="" service="" /> };
    },
  },
];

/** A page of one word: "#/workloads". */
function simple(id: string, label: string, view: (address: Address) => ComponentChildren): PageEntry {
  return {
    id,
    label,
    href: () => address([id]),
    open: (asked) => (asked.parts[0] === id && asked.parts.length === 1 ? { title: label, view: view(asked) } : null),
  };
}

/** The entry of an address and its page; `null` where there is none. */
export function pageAt(asked: Address): { entry: PageEntry; page: Page } | null {
  for (const entry of PAGES) {
    const page = entry.open(asked);
    if (page !== null) return { entry, page };
  }
  return null;
}
