// What a text begins with: the stored document as people write it, or a template.
import { type Problem, problemOf, silence } from "../../api/problem";
import type { Draft } from "../../state/drafts";
import { authorization } from "../../state/token";
import { toYaml } from "../../yaml";
import { template } from "./templates";
import { written } from "./words";

/** A document by its names, as the API's paths have them. */
export interface Stored {
  plural: string;
  namespace: string;
  name: string;
}

const DEADLINE_MS = 5_000;

/** Where reading needs a token, too, one that is given is used. */
export async function begin(stored: Stored | null, kind: string, service: string, token: string | null): Promise<{ draft: Draft } | { problem: Problem }> {
  if (stored === null) {
    const text = template(kind, service);
    return { draft: { text, base: text, version: null } };
  }
  const path = [stored.namespace, stored.plural, stored.name].map(encodeURIComponent);
  const headers = { accept: "application/json", ...authorization(token) };
  try {
    const response = await fetch(`v1/namespaces/${path.join("/")}`, { headers, signal: AbortSignal.timeout(DEADLINE_MS) });
    if (!response.ok) return { problem: await problemOf(response) };
    const document = (await response.json()) as { metadata: { resourceVersion: string } };
    const text = toYaml(written(document) as never);
    return { draft: { text, base: text, version: document.metadata.resourceVersion } };
  } catch {
    return { problem: silence() };
  }
}
