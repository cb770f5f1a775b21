// Drafts: work is kept until it is applied, and only work.
import { expect, test, vi } from "vitest";
import { draftAt, draftsBeside, keepDraft } from "./drafts";

test("what was written is found again, until it is what is stored", () => {
  const [listen, forget] = [vi.fn(), vi.fn()];
  vi.stubGlobal("addEventListener", listen);
  vi.stubGlobal("removeEventListener", forget);
  const draft = { text: "b", base: "a", version: "1" };
  keepDraft("#/edit", { ...draft, text: "a" });
  expect([draftAt("#/edit"), listen.mock.calls.length]).toEqual([null, 0]);
  keepDraft("#/edit", draft);
  expect(draftAt("#/edit")).toEqual(draft);
  expect([draftsBeside("#/edit"), draftsBeside("#/edit?kind=Service")]).toEqual([[], ["#/edit"]]);
  expect(listen).toHaveBeenCalledWith("beforeunload", expect.anything());
  forget.mockClear();
  keepDraft("#/edit", { ...draft, base: "b" });
  expect(draftAt("#/edit")).toBeNull();
  expect(forget).toHaveBeenCalledWith("beforeunload", listen.mock.calls[0]![1]);
});
