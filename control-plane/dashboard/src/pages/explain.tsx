// What becomes of a request and why, step by step, as the sidecars' own code decides it.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { inWords, problemOf } from "../api/problem";
import type { ExplainedBackend, Explanation } from "../api/types";
import { PolicyValues } from "../components/policy";
import { HealthBadge, TableFrame } from "../components/parts";
import { Split } from "../components/routes";
import { latency, percent } from "../format";
import type { Health } from "../health";
import { type Question, explainHref, go, workloadHref } from "../route";
import { useLive } from "../state/store";
import { authorization } from "../state/token";
import { isNode } from "../topology/graph";
import { body } from "./question";

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const DEADLINE_MS = 10_000;

type Answer = { explanation: Explanation } | { fault: string };

export function ExplainPage({ question }: { question: Question }) {
  const asked = JSON.stringify(question);
  const [answer, setAnswer] = useState<Answer | null>(null);
  const complete = question.from !== "" && question.to !== "";
  useEffect(() => {
    setAnswer(null);
    if (!complete) return;
    const ended = new AbortController();
    void explain(question, ended.signal).then((found) => ended.signal.aborted || setAnswer(found));
    return () => ended.abort();
  }, [asked]);

  return (
    <>
      <div class="page-head">
        <h1>Explain a request</h1>
      </div>
      <Form key={asked} question={question} />
      {!complete && <p class="quiet under">What becomes of a request, and why, decided by the code that sidecars run. Nothing is sent.</p>}
      <div aria-live="polite">
        {complete && answer === null && <p class="waiting">Deciding…</p>}
        {answer && "fault" in answer && <p class="fault">{answer.fault}</p>}
        {answer && "explanation" in answer && <Steps explanation={answer.explanation} />}
      </div>
    </>
  );
}

async function explain(question: Question, signal: AbortSignal): Promise<Answer> {
  const read = body(question);
  if ("fault" in read) return read;
  try {
    const response = await fetch("v1/explain", {
      method: "POST",
      headers: { "content-type": "application/json", accept: "application/json", ...authorization() },
      body: JSON.stringify(read.body),
      signal: AbortSignal.any([signal, AbortSignal.timeout(DEADLINE_MS)]),
    });
    return response.ok ? { explanation: (await response.json()) as Explanation } : { fault: inWords(await problemOf(response)) };
  } catch {
    return { fault: "The control plane does not answer." };
  }
}

function Form({ question }: { question: Question }) {
  const [draft, setDraft] = useState(question);
  const names = (useLive().mesh?.services ?? []).filter((service) => isNode(service.name)).map((service) => service.name);
  const field = (name: keyof Question) => ({
    id: `ask-${name}`,
    name,
    value: draft[name],
    onInput: (event: { currentTarget: { value: string } }) => {
      const { value } = event.currentTarget;
      setDraft((known) => ({ ...known, [name]: value }));
    },
  });
  return (
    <form
      class="ask-form"
      onSubmit={(event) => {
        event.preventDefault();
        // The question stands in the address, so that it can be shared and gone back from.
        go(explainHref(draft));
      }}
    >
      <label for="ask-from">
        From
        <input {...field("from")} required list="ask-names" placeholder="web.demo" autocomplete="off" spellcheck={false} />
      </label>
      <label for="ask-to">
        To
        <input {...field("to")} required list="ask-names" placeholder="payments.demo:80" autocomplete="off" spellcheck={false} />
      </label>
      <label for="ask-method" class="short">
        Method
        <select {...field("method")}>
          {[...new Set([...METHODS, draft.method])].map((method) => (
            <option key={method}>{method}</option>
          ))}
        </select>
      </label>
      <label for="ask-path">
        Path
        <input {...field("path")} placeholder="/" autocomplete="off" spellcheck={false} />
      </label>
      <label for="ask-headers" class="wide">
        Headers, one a line
        <textarea {...field("headers")} rows={2} placeholder="x-beta: 1" spellcheck={false} />
      </label>
      <button type="submit">Explain</button>
      <datalist id="ask-names">
        {names.map((name) => (
          <option key={name} value={name} />
        ))}
      </datalist>
    </form>
  );
}

const VERDICTS: Record<string, { health: Health; word: string }> = {
  sent: { health: "good", word: "Sent" },
  redirected: { health: "good", word: "Redirected by the sidecar" },
  fallback: { health: "degraded", word: "The fallback takes over" },
  refused: { health: "failing", word: "Refused" },
  depends: { health: "degraded", word: "It depends" },
};

function Steps({ explanation }: { explanation: Explanation }) {
  const { source, target, rules, decision, backends, policies, authorization, verdict, notes } = explanation;
  const { health, word } = VERDICTS[verdict.outcome] ?? { health: "idle" as Health, word: verdict.outcome };
  return (
    <>
      <div class={`verdict ${health}`} data-verdict={verdict.outcome}>
        <HealthBadge health={health} word={word} />
        <span>{verdict.text}</span>
        {verdict.reasons.map((reason) => (
          <code key={reason}>{reason}</code>
        ))}
      </div>
      {verdict.caveats.map(({ reason, text }) => (
        <p key={text} class="caveat">
          <strong>But:</strong> {text} {reason && <code>{reason}</code>}
        </p>
      ))}
      {notes.map((note) => (
        <p key={note} class="quiet">
          {note}
        </p>
      ))}
      <ol class="steps">
        <Step title="Caller">
          <p>
            {source.name}, decided by the sidecar of{" "}
            {source.workloads.map(({ workload, connected }, index) => (
              <span key={workload}>
                {index > 0 && ", "}
                <a href={workloadHref(workload, source.name)}>{workload}</a>
                {!connected && " (its stream is lost)"}
              </span>
            ))}
          </p>
        </Step>
        <Step title="Name">
          <p>{target.meaning}</p>
        </Step>
        <Step title="Port">
          <p>
            {target.port} → {target.targetPort} of its workloads, {target.protocol === "detected" ? "protocol detected from the first bytes" : target.protocol}
          </p>
        </Step>
        <Step title="Route">
          <p>{decision.text}</p>
          {rules.length > 0 && (
            <ol class="considered">
              {rules.map((rule, index) => (
                <li key={index} class={rule.taken ? "taken" : "passed"} data-taken={rule.taken}>
                  <span aria-hidden="true">{rule.taken ? "✓" : "✗"}</span>
                  <span>
                    <strong>
                      {rule.route}, rule {rule.rule}
                    </strong>{" "}
                    <span class="note">{rule.conditions.length === 0 ? "any request" : rule.conditions.join(" and ")}</span>
                    <br />
                    {rule.taken ? "taken" : rule.why}
                  </span>
                </li>
              ))}
            </ol>
          )}
          {decision.effects.map((effect) => (
            <p key={effect} class="effect">
              {effect}
            </p>
          ))}
        </Step>
        <Step title="Backends">
          {backends.length === 0 ? <p>none</p> : <Split backends={backends} full="" />}
          {backends.map((backend, index) => (
            <Candidates key={index} backend={backend} caller={source.name} />
          ))}
        </Step>
        {policies.map((policy) => (
          <Step key={policy.service} title={`Policy of ${policy.service}`}>
            <PolicyValues policy={policy} label={`Policy of ${policy.service}`} />
          </Step>
        ))}
        <Step title="Authorization">
          <p>{authorization}</p>
        </Step>
      </ol>
    </>
  );
}

function Step({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <li>
      <h2>{title}</h2>
      {children}
    </li>
  );
}

const BREAKERS: Record<string, Health> = { closed: "good", "half-open": "degraded", open: "failing" };

function Candidates({ backend, caller }: { backend: ExplainedBackend; caller: string }) {
  const label = `Endpoints of ${backend.service}`;
  return (
    <div class="candidates">
      <p>
        <strong>{backend.service}</strong>: {backend.text}
      </p>
      {backend.effects.map((effect) => (
        <p key={effect} class="effect">
          {effect}
        </p>
      ))}
      {backend.endpoints.length > 0 && (
        <TableFrame label={label}>
          <table>
            <thead>
              <tr>
                <th scope="col">Workload</th>
                <th scope="col">State</th>
                <th scope="col">Zone</th>
                <th scope="col" class="number">Weight</th>
                <th scope="col">Seen by</th>
                <th scope="col">Breaker</th>
                <th scope="col" class="number">Share</th>
                <th scope="col" class="number">In flight</th>
                <th scope="col" class="number">Latency</th>
              </tr>
            </thead>
            <tbody>
              {backend.endpoints.flatMap((endpoint) =>
                (endpoint.seenBy.length > 0 ? endpoint.seenBy : [null]).map((sight) => (
                  <tr key={`${endpoint.uid} ${sight?.workload}`}>
                    <th scope="row">
                      <a href={workloadHref(endpoint.workload, backend.service)}>{endpoint.workload}</a>
                    </th>
                    <td>
                      <HealthBadge health={endpoint.ready ? "good" : "failing"} word={endpoint.ready ? "ready" : "not ready"} />
                    </td>
                    <td>{endpoint.zone || "–"}</td>
                    <td class="number">{endpoint.weight}</td>
                    <td>{sight ? <a href={workloadHref(sight.workload, caller)}>{sight.workload}</a> : <span class="note">nobody yet</span>}</td>
                    <td title={sight?.openedReason}>{sight && <HealthBadge health={BREAKERS[sight.breaker] ?? "idle"} word={sight.breaker} />}</td>
                    <td class="number">{sight ? percent(sight.share) : ""}</td>
                    <td class="number">{sight?.inFlight}</td>
                    <td class="number">{sight ? latency(sight.latencyMs || null) : ""}</td>
                  </tr>
                )),
              )}
            </tbody>
          </table>
        </TableFrame>
      )}
    </div>
  );
}
