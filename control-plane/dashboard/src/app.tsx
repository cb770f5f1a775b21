// The frame around every page: name, navigation, state of the connection, theme.
import { useEffect, useRef } from "preact/hooks";
import { Mark, Moon, Sun } from "./components/icons";
import { Empty } from "./components/parts";
import { clock, exact, span } from "./format";
import { EventsPage } from "./pages/events";
import { ExplainPage } from "./pages/explain";
import { LivePage } from "./pages/live/live";
import { MeshPage } from "./pages/mesh";
import { ServicePage } from "./pages/service";
import { WorkloadsPage } from "./pages/workloads";
import { type Route, href, useRoute } from "./route";
import { staleSince } from "./state/live";
import { useLive, useNow } from "./state/store";
import { useTheme } from "./theme";

const PAGES = [
  { page: "mesh", label: "Mesh", to: href({ page: "mesh", view: "map" }) },
  { page: "workloads", label: "Workloads", to: href({ page: "workloads" }) },
  { page: "events", label: "Events", to: href({ page: "events" }) },
  { page: "live", label: "Live", to: "#/live" },
  { page: "explain", label: "Explain", to: "#/explain" },
] as const;

export function App() {
  const route = useRoute();
  const main = useRef<HTMLElement>(null);
  const title = titleOf(route);
  const firstPage = useRef(true);
  useEffect(() => {
    document.title = `${title} · pillion`;
    // A new page begins at its top, for the eye and for a screen reader; the first one is where the browser put it.
    if (!firstPage.current) {
      main.current?.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    firstPage.current = false;
  }, [title]);

  return (
    <>
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          // The fragment names the page, so the link's own way is not to be gone.
          event.preventDefault();
          main.current?.focus();
        }}
      >
        Skip to content
      </a>
      <header class="top">
        <a class="brand" href="#/" aria-label="pillion, the mesh">
          <Mark />
          <span>pillion</span>
        </a>
        <nav aria-label="Pages">
          {PAGES.map(({ page, label, to }) => (
            <a key={page} href={to} aria-current={isUnder(route, page) ? "page" : undefined}>
              {label}
            </a>
          ))}
        </nav>
        <Connection />
        <ThemeSwitch />
      </header>
      <StaleBanner />
      <main id="main" ref={main} tabIndex={-1}>
        <Page route={route} />
      </main>
      <Foot />
    </>
  );
}

function Page({ route }: { route: Route }) {
  switch (route.page) {
    case "mesh":
      return <MeshPage view={route.view} />;
    case "service":
      return <ServicePage {...route} />;
    case "workloads":
      return <WorkloadsPage />;
    case "events":
      return <EventsPage />;
    case "live":
      return <LivePage watch={route.watch} />;
    case "explain":
      return <ExplainPage question={route.question} />;
    case "unknown":
      return (
        <Empty title="There is no such page">
          <p>
            Nothing is at <code>{route.path}</code>. <a href="#/">Back to the mesh</a>
          </p>
        </Empty>
      );
  }
}

/** A service's page belongs to the mesh. */
function isUnder(route: Route, page: string): boolean {
  return route.page === page || (page === "mesh" && route.page === "service");
}

function titleOf(route: Route): string {
  switch (route.page) {
    case "mesh":
      return "Mesh";
    case "service":
      return `${route.name}.${route.namespace}`;
    case "workloads":
      return "Workloads";
    case "events":
      return "Events";
    case "live":
      return "Live requests";
    case "explain":
      return "Explain";
    case "unknown":
      return "Not found";
  }
}

function Connection() {
  const live = useLive();
  const stale = staleSince(live, useNow());
  const state = stale !== null ? "stale" : live.mesh === null ? "connecting" : "live";
  return (
    <span class={`connection ${state}`}>
      <span class="dot" aria-hidden="true" />
      {state}
    </span>
  );
}

function StaleBanner() {
  const live = useLive();
  const now = useNow();
  const stale = staleSince(live, now);
  return (
    <div role="status" class="banner-frame">
      {stale !== null && (
        <p class="banner">
          <strong>
            {live.mesh === null ? "The control plane does not answer" : "Stale"} since <time title={exact(stale)}>{clock(stale)}</time>
          </strong>{" "}
          {/* Counting aloud each second would drown everything else. */}
          <span aria-hidden="true">({span(now - stale)}).</span> Trying to reconnect. Sidecars go on with the configuration they have.
        </p>
      )}
    </div>
  );
}

function ThemeSwitch() {
  const [theme, toggle] = useTheme();
  const other = theme === "dark" ? "light" : "dark";
  return (
    <button type="button" class="theme" onClick={toggle} aria-label={`Switch to ${other} theme`} title={`Switch to ${other} theme`}>
      {theme === "dark" ? <Sun /> : <Moon />}
    </button>
  );
}

function Foot() {
  const { mesh } = useLive();
  return (
    <footer>
      <span>
        pillion {mesh?.version}
        {mesh && ` · trust domain ${mesh.trustDomain}`}
      </span>
      <span>
        <a href="docs">REST API</a> · <a href="metrics">Metrics</a> · <a href="licenses.md">Licences</a>
      </span>
    </footer>
  );
}
