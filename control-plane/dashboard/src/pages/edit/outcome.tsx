// What a check has found or an application has done: every problem, every difference, every warning.
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { AppliedDocument } from "../../api/apply";
import type { Fault } from "../../api/problem";
import { plural } from "../../components/policy";
import { TokenForm } from "../../components/token";
import { count } from "../../format";
import { documentHref } from "../../route";
import { type DiffLine, type Drawn, type Standing, byDocument, drawn, isStale } from "./words";

export interface OutcomeProps {
  standing: Standing;
  text: string;
  /** Where the text began with a stored document: at which version. */
  begunAt: { version: string | null; is: (result: AppliedDocument) => boolean } | null;
  check: (token?: string) => void;
  goTo: (line: number) => void;
}

const WAITING: ReadonlySet<Standing["state"]> = new Set(["unchecked", "checking", "applying"]);

export function Outcome({ standing, text, begunAt, check, goTo }: OutcomeProps) {
  const section = useRef<HTMLElement>(null);
  useEffect(() => {
    // Where it stands below the text, on a phone, it comes into sight by itself.
    const top = section.current?.getBoundingClientRect().top ?? 0;
    if (!WAITING.has(standing.state) && top > innerHeight - 120) section.current?.scrollIntoView({ block: "start" });
  }, [standing]);
  return (
    <section ref={section} class="edit-outcome" aria-labelledby="edit-outcome-title">
      <h2 id="edit-outcome-title">{title(standing)}</h2>
      {isStale(standing, text) && <p class="note">Of the text as it was when it was checked.</p>}
      {standing.state === "unchecked" && (
        <p class="quiet">A check asks the control plane what it would make of the text, names every problem, and shows line by line what would change. It changes nothing.</p>
      )}
      {standing.state === "needs-token" && (
        <TokenForm title="Checking and applying need a token" why={standing.why} given={check}>
          <p>A token with the role operator, for the namespaces of the documents. It is kept in this tab only; the text stays as it is.</p>
        </TokenForm>
      )}
      {standing.state === "refused" &&
        (standing.problem.faults.length > 0 ? <Faults faults={standing.problem.faults} tone="failing" goTo={goTo} /> : <p class="fault">{standing.problem.detail || standing.problem.title}</p>)}
      {standing.state === "overtaken" && (
        <div class="edit-notice failing">
          <p>{standing.detail}</p>
          <p>Your text is as you left it. A new check shows what it would change now.</p>
          <button type="button" onClick={() => check()}>
            Check again
          </button>
        </div>
      )}
      {standing.state === "checked" && begunAt !== null && standing.tried.results.some((result) => begunAt.is(result) && result.resourceVersion !== (begunAt.version ?? "")) && (
        <p class="edit-notice degraded">
          What is stored has changed since this text was begun. To apply it would undo that, where the text does not say the same: the lines below show all of it.
        </p>
      )}
      {standing.state === "checked" && (
        <>
          <Faults faults={standing.tried.warnings} tone="degraded" goTo={goTo} />
          <Results results={standing.tried.results} tried={standing.tried.results} done={false} />
        </>
      )}
      {standing.state === "applied" && (
        <>
          <Faults faults={standing.applied.warnings} tone="degraded" goTo={goTo} />
          <Results results={standing.applied.results} tried={standing.tried.results} done />
        </>
      )}
    </section>
  );
}

function title({ state }: Standing): string {
  switch (state) {
    case "refused":
      return "What is wrong";
    case "overtaken":
      return "Not applied";
    case "checked":
      return "What would change";
    case "applied":
      return "What has changed";
    case "needs-token":
      return "Not done yet";
    default:
      return "Before it is applied";
  }
}

/** Each with its document, its field and a way to its line. */
function Faults({ faults, tone, goTo }: { faults: readonly Fault[]; tone: "failing" | "degraded"; goTo: (line: number) => void }) {
  if (faults.length === 0) return null;
  return (
    <div class={`edit-notice ${tone}`}>
      {tone === "degraded" && <strong>{count(faults.length, "warning")}</strong>}
      {byDocument(faults).map(({ document, faults }, index) => (
        <div key={index}>
          {document !== "" && <h3>{document}</h3>}
          <ul class="edit-faults">
            {faults.map(({ field, message, line }, key) => (
              <li key={key}>
                {line !== undefined && (
                  <button type="button" onClick={() => goTo(line)}>
                    line {line}
                  </button>
                )}
                <span>
                  {field !== "" && <code>{field}</code>} {message}
                </span>
              </li>
            ))}
          </ul>
        </div>
      ))}
    </div>
  );
}

/** Only what was tried has differences. */
function Results({ results, tried, done }: { results: readonly AppliedDocument[]; tried: readonly AppliedDocument[]; done: boolean }) {
  const words = done ? { created: "created", configured: "changed", unchanged: "unchanged" } : { created: "would be created", configured: "would change", unchanged: "unchanged" };
  const differences = useMemo(() => drawn(tried.map(({ diff }) => diff ?? "")), [tried]);
  return (
    <ol class="edit-results">
      {results.map((result, index) => {
        const { kind, namespace, name, outcome } = result;
        return (
          <li key={`${kind} ${namespace}/${name}`} data-outcome={outcome}>
            <h3>
              <span class="note">{kind}</span>{" "}
              {done || outcome !== "created" ? <a href={documentHref(plural(kind), namespace, name)}>{`${namespace}/${name}`}</a> : `${namespace}/${name}`}{" "}
              <span class="edit-word">{words[outcome]}</span>
            </h3>
            <Difference of={`${kind} ${namespace}/${name}`} drawn={differences[index]!} />
          </li>
        );
      })}
    </ol>
  );
}

const SIGNS = { "+": { name: "added", shown: "+" }, "-": { name: "removed", shown: "−" }, " ": { name: "same", shown: " " } };

function Difference({ of, drawn: { lines, left, added, removed } }: { of: string; drawn: Drawn }) {
  if (added + removed === 0) return null;
  const all = `${count(added, "line")} added, ${removed} removed`;
  return (
    <>
      {lines.length > 0 && (
        <div class="diff" role="region" tabIndex={0} aria-label={`${of}: ${all}`}>
          <div class="diff-lines">{lines.map(Line)}</div>
        </div>
      )}
      {left > 0 && (
        <p class="note">
          {count(left, "more line")} not drawn here; in all {all}. To see them: <code>pillion apply --dry-run --diff -f FILE</code>
        </p>
      )}
    </>
  );
}

function Line(line: DiffLine, index: number) {
  if ("gap" in line) {
    return (
      <div key={index} class="gap">
        from line {line.gap}
      </div>
    );
  }
  const { name, shown } = SIGNS[line.sign];
  return (
    <div key={index} class={name}>
      <span class="sign" aria-hidden="true">
        {shown}
      </span>
      {line.sign !== " " && <span class="unseen">{name}: </span>}
      <span class="line">{line.text}</span>
    </div>
  );
}
