// Documents to the control plane: to be tried, and to be applied.
import { type Fault, type Problem, problemOf, silence } from "./problem";

/** The control plane waits for its store, and until sidecars have been told. */
const DEADLINE_MS = 30_000;

export interface Applied {
  dryRun: boolean;
  /** Of a dry run: what it has seen of what is stored, as the control plane writes it. */
  seen?: string;
  /** In the order of the text. */
  results: AppliedDocument[];
  warnings: Fault[];
}

export interface AppliedDocument {
  kind: string;
  namespace: string;
  name: string;
  outcome: "created" | "configured" | "unchanged";
  /** Empty in a dry run of what is new. */
  resourceVersion: string;
  /** In a dry run: a unified diff of YAML. */
  diff?: string;
}

export type Answer = { applied: Applied } | { problem: Problem };

/** What would become of these documents. */
export function tryOut(text: string, token: string): Promise<Answer> {
  return send("dryRun=true", text, token, silence());
}

/** Applies what was tried, if what is stored is still what it was tried against. */
export function apply(text: string, token: string, tried: Applied): Promise<Answer> {
  const unknown = silence("The control plane does not answer, so it is not known whether this was applied. Check again to see.");
  return send(`seen=${encodeURIComponent(tried.seen ?? "")}`, text, token, unknown);
}

async function send(query: string, text: string, token: string, otherwise: Problem): Promise<Answer> {
  try {
    const response = await fetch(`v1/apply?${query}`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/yaml", accept: "application/json" },
      body: text,
      signal: AbortSignal.timeout(DEADLINE_MS),
    });
    return response.ok ? { applied: (await response.json()) as Applied } : { problem: await problemOf(response) };
  } catch {
    return { problem: otherwise };
  }
}
