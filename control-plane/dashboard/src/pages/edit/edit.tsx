// Documents are written, checked against what is stored, and applied. What is written outlives every answer and every other page.
import { useEffect, useRef, useState } from "preact/hooks";
import { apply, tryOut } from "../../api/apply";
import { type Problem, inWords, wantsToken } from "../../api/problem";
import { plural } from "../../components/policy";
import { TokenForm } from "../../components/token";
import { documentHref, go, newHref, parse } from "../../route";
import { type Draft, draftAt, draftsBeside, keepDraft } from "../../state/drafts";
import { useLive } from "../../state/store";
import { setToken, useToken } from "../../state/token";
import { isNode } from "../../topology/graph";
import { type Stored, begin } from "./begin";
import { Field } from "./field";
import { Outcome } from "./outcome";
import { ABOUT_A_SERVICE, KINDS } from "./templates";
import { type Standing, afterApply, afterCheck, applicable, lineAt, refused, sentence } from "./words";

export interface EditPageProps {
  /** Its address, by which its draft is kept. */
  at: string;
  /** The document that it begins with; `null`: a new one of this kind, for this service. */
  stored: Stored | null;
  kind: string;
  service: string;
}

export function EditPage({ at, stored, kind, service }: EditPageProps) {
  const token = useToken();
  return (
    <div class="edit">
      <div class="page-head">
        {stored === null ? (
          <h1>Apply documents</h1>
        ) : (
          <h1>
            Edit <a href={documentHref(stored.plural, stored.namespace, stored.name)}>{stored.name}</a> <span class="subject">{stored.namespace}</span>
          </h1>
        )}
        {token !== null && (
          <button type="button" class="plain" onClick={() => setToken(null)}>
            Forget the token
          </button>
        )}
      </div>
      {stored === null && <Beginning kind={kind} service={service} />}
      <Unapplied at={at} />
      <Loaded key={at} at={at} stored={stored} kind={kind} service={service} />
    </div>
  );
}

/** What a new document begins with stands in the address; each has a draft of its own. */
function Beginning({ kind, service }: { kind: string; service: string }) {
  const services = (useLive().mesh?.services ?? []).filter(({ name, kind }) => kind === "service" && isNode(name)).map(({ name }) => name);
  const names = [...new Set([...services, ...(service === "" ? [] : [service])])].sort();
  return (
    <div class="toolbar">
      <label for="edit-kind">Begin with</label>
      <select id="edit-kind" value={kind} onChange={(event) => go(newHref({ kind: event.currentTarget.value, service }))}>
        <option value="">an empty text</option>
        {KINDS.map((one) => (
          <option key={one}>{one}</option>
        ))}
      </select>
      {ABOUT_A_SERVICE.includes(kind) && (
        <>
          <label for="edit-service">for</label>
          <select id="edit-service" value={service} onChange={(event) => go(newHref({ kind, service: event.currentTarget.value }))}>
            <option value="">a service to be named</option>
            {names.map((one) => (
              <option key={one}>{one}</option>
            ))}
          </select>
        </>
      )}
    </div>
  );
}

/** So that nothing that was written elsewhere is forgotten. */
function Unapplied({ at }: { at: string }) {
  const others = draftsBeside(at);
  if (others.length === 0) return null;
  return (
    <p class="note edit-others">
      Written and not applied:{" "}
      {others.map((href, index) => (
        <span key={href}>
          {index > 0 && ", "}
          <a href={href}>{nameOf(href)}</a>
        </span>
      ))}
    </p>
  );
}

function nameOf(href: string): string {
  const { parts, query } = parse(href);
  const [, namespace, , name] = parts;
  return name === undefined ? `a new ${query.get("kind") ?? "document"}` : `${namespace}/${name}`;
}

function Loaded(props: EditPageProps) {
  const { at, stored, kind, service } = props;
  const [draft, setDraft] = useState(() => draftAt(at));
  const [problem, setProblem] = useState<Problem | null>(null);
  const token = useToken();
  const load = async (using = token) => {
    setProblem(null);
    const begun = await begin(stored, kind, service, using);
    if ("draft" in begun) setDraft((known) => known ?? begun.draft);
    else setProblem(begun.problem);
  };
  useEffect(() => void (draft === null && load()), []);
  if (draft !== null) return <Editor {...props} initial={draft} />;
  if (problem === null) return <p class="waiting">Loading…</p>;
  if (wantsToken(problem)) {
    return (
      <TokenForm title="Reading what is stored needs a token" role="viewer" why={token === null ? "" : inWords(problem)} given={(token) => void load(token)}>
        <p>A token with the role viewer reads it; to check and apply, it needs the role operator. It is kept in this tab only.</p>
      </TokenForm>
    );
  }
  return (
    <>
      <p class="fault" role="alert">
        {inWords(problem)}
      </p>
      <button type="button" class="plain" onClick={() => void load()}>
        Try again
      </button>
    </>
  );
}

function Editor({ at, stored, kind, service, initial }: EditPageProps & { initial: Draft }) {
  const [draft, setDraft] = useState(initial);
  const [standing, setStanding] = useState<Standing>({ state: "unchecked" });
  const [setAside, setSetAside] = useState<string | null>(null);
  const token = useToken();
  const field = useRef<HTMLTextAreaElement>(null);
  const checker = useRef<HTMLButtonElement>(null);
  const { text } = draft;
  const busy = standing.state === "checking" || standing.state === "applying";
  const tried = applicable(standing, text);

  const put = (next: Draft) => {
    keepDraft(at, next);
    setDraft(next);
  };
  const check = async (using = token) => {
    if (busy) return;
    if (using === null) return setStanding({ state: "needs-token", why: "" });
    setStanding({ state: "checking" });
    setStanding(afterCheck(text, await tryOut(text, using)));
  };
  const applyIt = async () => {
    if (busy || tried === null) return;
    if (token === null) return setStanding({ state: "needs-token", why: "" });
    setStanding({ state: "applying" });
    const after = afterApply(text, tried, await apply(text, token, tried));
    if (after.state === "applied") {
      const version = after.applied.results.find((result) => isOf(result, stored))?.resourceVersion ?? null;
      // It may have been written on meanwhile, here or, where this page was left, nowhere.
      setDraft((known) => ({ ...known, base: text, version }));
      const kept = draftAt(at);
      if (kept !== null) keepDraft(at, { ...kept, base: text, version });
      setSetAside(null);
    }
    setStanding(after);
  };
  const startAgain = async () => {
    const begun = await begin(stored, kind, service, token);
    if ("problem" in begun) return setStanding(refused(text, begun.problem));
    setSetAside(text);
    setStanding({ state: "unchecked" });
    put(begun.draft);
    field.current?.focus({ preventScroll: true });
  };
  const goTo = (line: number) => {
    const { current } = field;
    if (current === null) return;
    const { start, end } = lineAt(text, line);
    current.focus({ preventScroll: true });
    current.setSelectionRange(start, end);
    const height = Number.parseFloat(getComputedStyle(current).lineHeight);
    const below = current.getBoundingClientRect().top + line * height;
    // Not behind the frame's head or the bar.
    if (below < 90 || below > innerHeight - 90) scrollBy({ top: below - innerHeight / 3 });
  };
  const faults = standing.state === "refused" && standing.text === text ? standing.problem.faults : [];

  return (
    <div class="edit-columns">
      <section class="edit-writing" aria-label="Text">
        <label for="edit-text">
          YAML <span class="note">several documents: with --- between them</span>
        </label>
        <Field area={field} text={text} faults={faults} write={(next) => put({ ...draft, text: next })} check={() => void check()} />
        <div class="edit-bar">
          <button ref={checker} type="button" class={tried === null ? "main" : ""} aria-disabled={busy} aria-keyshortcuts="Control+Enter" onClick={() => void check()}>
            Check
          </button>
          <button type="button" class={tried === null ? "" : "main"} aria-disabled={busy || tried === null} aria-describedby="edit-standing" onClick={() => void applyIt()}>
            Apply
          </button>
          <p role="status" id="edit-standing">
            {sentence(standing, text)}
          </p>
          {setAside !== null && (
            <button
              type="button"
              onClick={() => {
                put({ ...draft, text: setAside });
                setSetAside(null);
                field.current?.focus({ preventScroll: true });
              }}
            >
              Bring my text back
            </button>
          )}
          {text !== draft.base && (
            <button type="button" onClick={() => void startAgain()}>
              {stored === null ? "Start again" : "Back to what is stored"}
            </button>
          )}
        </div>
      </section>
      <Outcome
        standing={standing}
        text={text}
        begunAt={stored === null ? null : { version: draft.version, is: (result) => isOf(result, stored) }}
        check={(using) => {
          // What asked for it goes, and whoever uses the keyboard would stand nowhere.
          checker.current?.focus({ preventScroll: true });
          void check(using);
        }}
        goTo={goTo}
      />
    </div>
  );
}

function isOf(result: { kind: string; namespace: string; name: string }, stored: Stored | null): boolean {
  return stored !== null && plural(result.kind) === stored.plural && result.namespace === stored.namespace && result.name === stored.name;
}
