// What a check and an application come to: decided here, drawn elsewhere.
import type { Answer, Applied, AppliedDocument } from "../../api/apply";
import { type Fault, type Problem, inWords, reasonOf, wantsToken } from "../../api/problem";
import { count } from "../../format";

/** What was last done with the text, and what came of it. */
export type Standing =
  | { state: "unchecked" }
  | { state: "checking" | "applying" }
  | { state: "needs-token"; why: string }
  | { state: "refused"; text: string; problem: Problem }
  /** Somebody else was quicker. */
  | { state: "overtaken"; text: string; detail: string }
  | { state: "checked"; text: string; tried: Applied }
  /** `tried` still says what was changed. */
  | { state: "applied"; text: string; tried: Applied; applied: Applied };

export function afterCheck(text: string, answer: Answer): Standing {
  return "applied" in answer ? { state: "checked", text, tried: answer.applied } : refused(text, answer.problem);
}

export function afterApply(text: string, tried: Applied, answer: Answer): Standing {
  if ("applied" in answer) return { state: "applied", text, tried, applied: answer.applied };
  if (reasonOf(answer.problem) === "conflict") return { state: "overtaken", text, detail: answer.problem.detail };
  return refused(text, answer.problem);
}

export function refused(text: string, problem: Problem): Standing {
  return wantsToken(problem) ? { state: "needs-token", why: inWords(problem) } : { state: "refused", text, problem };
}

/** What may be applied: a check of exactly this text, by which something would change. */
export function applicable(standing: Standing, text: string): Applied | null {
  if (standing.state !== "checked" || standing.text !== text) return null;
  return standing.tried.results.some(({ outcome }) => outcome !== "unchanged") ? standing.tried : null;
}

/** True where what is shown is of another text than is written now. */
export function isStale(standing: Standing, text: string): boolean {
  return "text" in standing && standing.text !== text;
}

/** In a sentence, for everybody who does not look at the rest. */
export function sentence(standing: Standing, text: string): string {
  if (isStale(standing, text)) return "The text has changed since. Check it again.";
  switch (standing.state) {
    case "unchecked":
      return "Check it to see what would change; then it can be applied.";
    case "checking":
      return "Checking…";
    case "applying":
      return "Applying…";
    case "needs-token":
      return "Nothing was changed: a token is needed.";
    case "refused": {
      const { problem } = standing;
      const many = problem.faults.length;
      return many > 0 ? `${count(many, "problem")}. Nothing was changed.` : inWords(problem);
    }
    case "overtaken":
      return "Not applied: somebody has changed it since the check.";
    case "checked":
      return tally(standing.tried, "would change", "would be created", "Nothing would change.");
    case "applied":
      return `Applied: ${tally(standing.applied, "changed", "created", "nothing had to change.")}`;
  }
}

function tally({ results }: Applied, changed: string, made: string, none: string): string {
  const many = (outcome: AppliedDocument["outcome"]) => results.filter((result) => result.outcome === outcome).length;
  const same = many("unchanged");
  if (same === results.length) return none;
  const parts: [number, string][] = [
    [many("configured"), changed],
    [many("created"), made],
    [same, same === 1 ? "stays as it is" : "stay as they are"],
  ];
  const said = parts.filter(([quantity]) => quantity > 0);
  return `${said.map(([quantity, words], index) => `${index === 0 ? count(quantity, "document") : quantity} ${words}`).join(", ")}.`;
}

/** The faults of each document, in the order of the text. */
export function byDocument(faults: readonly Fault[]): { document: string; faults: Fault[] }[] {
  const groups = new Map<string, { document: string; faults: Fault[] }>();
  for (const fault of faults) {
    const document = fault.document ?? (fault.index === undefined ? "" : `Document ${fault.index + 1}`);
    const key = `${fault.index} ${document}`;
    const group = groups.get(key) ?? { document, faults: [] };
    group.faults.push(fault);
    groups.set(key, group);
  }
  return [...groups.values()];
}

/** One line of a unified diff; a gap says at which line it goes on. */
export type DiffLine = { sign: "+" | "-" | " "; text: string } | { gap: number };

export function diffLines(diff: string): DiffLine[] {
  const lines: DiffLine[] = [];
  for (const line of diff.split("\n")) {
    const hunk = /^@@ -\d+(?:,\d+)? \+(\d+)/.exec(line);
    const sign = line.charAt(0);
    // What begins at the beginning leaves nothing out.
    if (hunk !== null) {
      if (Number(hunk[1]) > 1) lines.push({ gap: Number(hunk[1]) });
    } else if (sign === "+" || sign === "-" || sign === " ") lines.push({ sign, text: line.slice(1) });
  }
  return lines;
}

/** Lines of differences that a page draws; a browser takes seconds for tens of thousands. */
export const MOST_LINES = 2_000;

/** What is drawn of one document's differences. */
export interface Drawn {
  lines: DiffLine[];
  /** Lines that are not drawn. */
  left: number;
  /** Of all, also of those that are not drawn. */
  added: number;
  removed: number;
}

/** What is drawn of the differences of a request: its first lines, over all documents. */
export function drawn(diffs: readonly string[], most = MOST_LINES): Drawn[] {
  let room = most;
  return diffs.map((diff) => {
    const all = diffLines(diff);
    const many = (sign: string) => all.filter((line) => "sign" in line && line.sign === sign).length;
    const lines = all.slice(0, room);
    room -= lines.length;
    return { lines, left: all.length - lines.length, added: many("+"), removed: many("-") };
  });
}

/** Where a line begins in a text and how long it is, to be marked. */
export function lineAt(text: string, line: number): { start: number; end: number } {
  const lines = text.split("\n");
  const before = lines.slice(0, Math.min(line, lines.length) - 1);
  const start = before.reduce((sum, one) => sum + one.length + 1, 0);
  return { start, end: start + (lines[before.length] ?? "").length };
}

/** What the server notes of a document, which nobody writes. */
const NOTED = ["uid", "creationTimestamp", "generation", "resourceVersion"];

/** A document as people write it. */
export function written(document: { metadata: Record<string, unknown>; status?: unknown }): object {
  const { status: _, ...rest } = document;
  const metadata = Object.fromEntries(Object.entries(document.metadata).filter(([name]) => !NOTED.includes(name)));
  return { ...rest, metadata };
}
