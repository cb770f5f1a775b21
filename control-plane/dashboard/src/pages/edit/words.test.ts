// What a check comes to: what may be applied, what is said, and which lines are marked.
import { describe, expect, test } from "vitest";
import type { Applied } from "../../api/apply";
import { inWords, problemOf, reasonOf, wantsToken } from "../../api/problem";
import { afterApply, afterCheck, applicable, byDocument, diffLines, drawn, isStale, lineAt, sentence, written } from "./words";

const applied = (...outcomes: Applied["results"][number]["outcome"][]): Applied => ({
  dryRun: true,
  warnings: [],
  results: outcomes.map((outcome, index) => ({ kind: "Service", namespace: "demo", name: `s${index}`, outcome, resourceVersion: outcome === "created" ? "" : `${index + 10}`, diff: "" })),
});
const problem = (reason: string, more: object = {}) => ({ type: `urn:pillion:problem:${reason}`, title: "No", status: 409, detail: "because", faults: [], ...more });

describe("only what was checked can be applied", () => {
  const tried = applied("configured", "unchanged");
  const checked = afterCheck("a", { applied: tried });

  test("exactly that text", () => {
    expect(applicable(checked, "a")).toBe(tried);
    expect(applicable(checked, "a ")).toBeNull();
    expect(isStale(checked, "a ")).toBe(true);
    expect(sentence(checked, "a ")).toContain("Check it again");
  });

  test("once, and only where something would change", () => {
    expect(applicable(afterCheck("a", { applied: applied("unchanged") }), "a")).toBeNull();
    expect(applicable(afterApply("a", tried, { applied: tried }), "a")).toBeNull();
    expect(applicable(afterCheck("a", { problem: problem("invalid") }), "a")).toBeNull();
  });
});

describe("what is said", () => {
  test.each<[Applied, string, string]>([
    [applied("configured"), "1 document would change.", "Applied: 1 document changed."],
    [applied("created", "created"), "2 documents would be created.", "Applied: 2 documents created."],
    [applied("configured", "created", "unchanged"), "1 document would change, 1 would be created, 1 stays as it is.", "Applied: 1 document changed, 1 created, 1 stays as it is."],
    [applied("unchanged", "unchanged"), "Nothing would change.", "Applied: nothing had to change."],
  ])("case %#", (answer, before, after) => {
    expect(sentence(afterCheck("a", { applied: answer }), "a")).toBe(before);
    expect(sentence(afterApply("a", answer, { applied: answer }), "a")).toBe(after);
  });

  test("of faults their number, of everything else the reason", () => {
    const faults = [{ field: "spec.a", message: "is wrong" }, { field: "", message: "is not YAML" }];
    expect(sentence(afterCheck("a", { problem: problem("invalid", { faults }) }), "a")).toBe("2 problems. Nothing was changed.");
    expect(sentence(afterCheck("a", { problem: problem("store-unavailable") }), "a")).toBe("because");
    expect(inWords(problem("invalid", { faults }))).toBe("spec.a is wrong; is not YAML");
  });

  test("somebody else's change and a token that does not do are told apart", () => {
    const tried = applied("configured");
    expect(afterApply("a", tried, { problem: problem("conflict") })).toEqual({ state: "overtaken", text: "a", detail: "because" });
    expect(afterCheck("a", { problem: problem("conflict") }).state).toBe("refused");
    for (const reason of ["token-missing", "token-lacks-role"]) {
      expect(afterApply("a", tried, { problem: problem(reason) })).toEqual({ state: "needs-token", why: "because" });
      expect(wantsToken(problem(reason))).toBe(true);
    }
    expect(wantsToken(problem("conflict"))).toBe(false);
  });

  test("an answer that is no problem document still is a problem", async () => {
    const read = await problemOf(new Response("<h1>Bad gateway", { status: 502 }));
    expect([read.status, reasonOf(read), inWords(read)]).toEqual([502, "", "The control plane answered with status 502."]);
  });
});

test("faults stand under their documents, in the order of the text", () => {
  const fault = (index: number | undefined, document: string | undefined, field: string) => ({ field, message: "", ...(index !== undefined && { index }), ...(document && { document }) });
  const groups = byDocument([fault(0, "Service demo/a", "x"), fault(0, "Service demo/a", "y"), fault(1, "Service demo/a", "z"), fault(2, undefined, "kind"), fault(undefined, undefined, "")]);
  expect(groups.map(({ document, faults }) => [document, faults.map(({ field }) => field).join()])).toEqual([
    ["Service demo/a", "x,y"],
    ["Service demo/a", "z"],
    ["Document 3", "kind"],
    ["", ""],
  ]);
});

test("a unified diff is read line by line, and says what it leaves out", () => {
  const diff = "@@ -1,2 +1,2 @@\n kind: A\n-a: 1\n+a: 2\n@@ -20,2 +20,3 @@\n   - x\n+  - \n";
  expect(diffLines(diff)).toEqual([
    { sign: " ", text: "kind: A" },
    { sign: "-", text: "a: 1" },
    { sign: "+", text: "a: 2" },
    { gap: 20 },
    { sign: " ", text: "  - x" },
    { sign: "+", text: "  - " },
  ]);
  expect(diffLines("@@ -0,0 +1 @@\n+@@ -1 +1 @@\n")).toEqual([{ sign: "+", text: "@@ -1 +1 @@" }]);
  expect(diffLines("")).toEqual([]);
});

test("of many differences the first lines are drawn, over all documents, and all are counted", () => {
  const diff = `@@ -1,3 +1,3 @@\n a: 1\n${"-b: 1\n".repeat(3)}${"+b: 2\n".repeat(4)}`;
  const [first, second, third, none] = drawn([diff, diff, diff, ""], 10);
  expect([first, second, third, none].map((one) => [one?.lines.length, one?.left])).toEqual([[8, 0], [2, 6], [0, 8], [0, 0]]);
  for (const one of [first, second, third]) expect(one).toMatchObject({ added: 4, removed: 3 });
  expect(second?.lines).toEqual([{ sign: " ", text: "a: 1" }, { sign: "-", text: "b: 1" }]);
});

test.each([
  [1, 0, 2],
  [2, 3, 3],
  [3, 4, 5],
  [99, 4, 5],
])("line %i is found", (line, start, end) => expect(lineAt("ab\n\nc", line)).toEqual({ start, end }));

test("what only the server writes is not in the text", () => {
  const document = { kind: "Service", metadata: { name: "a", labels: { x: "y" }, uid: "1", creationTimestamp: "t", generation: 3, resourceVersion: "9" }, spec: {}, status: {} };
  expect(written(document)).toEqual({ kind: "Service", metadata: { name: "a", labels: { x: "y" } }, spec: {} });
});
