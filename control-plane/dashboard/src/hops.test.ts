// What is said of a split.
import { expect, test } from "vitest";
import { inWords, segmentWords } from "./hops";

test("a bar can be heard", () => {
  const segments = [
    { segment: "retries", share: 0.25, meanMs: 25 },
    { segment: "application", share: 0.75, meanMs: 75 },
  ];
  expect(inWords(segments)).toBe("earlier tries 25 ms, 25.0 %; application 75 ms, 75.0 %");
});

test("a segment of a later release is called what it calls itself", () => {
  expect(segmentWords("queue").label).toBe("queue");
});
