// The frame around every page: name, navigation, state of the connection, theme.
import { useEffect, useRef } from "preact/hooks";
import { Mark, Moon, Sun } from "./components/icons";
import { Empty } from "./components/parts";
import { TokenForm } from "./components/token";
import { clock, exact, span } from "./format";
import { PAGES, pageAt } from "./pages/table";
import { meshHref, useAddress } from "./route";
import { staleSince } from "./state/live";
import { useLive, useNow } from "./state/store";
import { setToken } from "./state/token";
import { useTheme } from "./theme";

export function App() {
  const asked = useAddress();
  const { locked, denied } = useLive();
  const main = useRef<HTMLElement>(null);
  const found = pageAt(asked);
  const title = found?.page.title ?? "Not found";
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
          {PAGES.filter(({ label }) => label !== undefined).map(({ id, label, href }) => (
            <a key={id} href={href()} aria-current={found && (found.entry.under ?? found.entry.id) === id ? "page" : undefined}>
              {label}
            </a>
          ))}
        </nav>
        <Connection />
        <ThemeSwitch />
      </header>
      <StaleBanner />
      {denied !== null && <DeniedBanner why={denied} />}
      <main id="main" ref={main} tabIndex={-1}>
        {locked !== null ? (
          <TokenForm title="Looking at this mesh needs a token" role="viewer" why={locked}>
            <p>This control plane is reached from other machines, too, so a token with the role viewer is needed to read. It is kept in this tab only.</p>
          </TokenForm>
        ) : found && denied !== null && !found.entry.inNamespace ? (
          <Empty title="This page needs a token for all namespaces">
            <p>What is shown here is of the whole mesh, which the token in this tab is not for.</p>
          </Empty>
        ) : found ? (
          found.page.view
        ) : (
          <Empty title="There is no such page">
            <p>
              Nothing is at <code>/{asked.parts.join("/")}</code>. <a href={meshHref()}>Back to the mesh</a>
            </p>
          </Empty>
        )}
      </main>
      <Foot />
    </>
  );
}

function Connection() {
  const live = useLive();
  const stale = staleSince(live, useNow());
  const state = live.locked !== null ? "locked" : stale !== null ? "stale" : live.denied !== null ? "limited" : live.mesh === null ? "connecting" : "live";
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

/** What the token is not for, and what it does. */
function DeniedBanner({ why }: { why: string }) {
  return (
    <div role="status" class="banner-frame">
      <p class="banner">
        <strong>The token in this tab does not show the whole mesh:</strong> {why}. Documents of that namespace can be read and, with the role
        operator, <a href="#/edit">applied</a>, and its requests <a href="#/live">watched</a>.{" "}
        <button type="button" class="plain" onClick={() => setToken(null)}>
          Use another token
        </button>
      </p>
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
