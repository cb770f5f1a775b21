import { expect, test } from "vitest";
import { inWords } from "../components/faults";
import { parted } from "../components/policy";
import { body } from "./question";

const question = { from: "web.demo", to: "pay.demo:80", method: "POST", path: "/a?b=1", headers: "x-beta: 1\n\n x-time: 1:2 " };

test("headers are read line by line", () => {
  const read = body(question);
  expect(read).toEqual({
    body: {
      from: "web.demo", to: "pay.demo:80", method: "POST", path: "/a?b=1",
      headers: [{ name: "x-beta", value: "1" }, { name: "x-time", value: "1:2" }],
    },
  });
  expect(body({ ...question, headers: "nonsense" })).toEqual({ fault: '"nonsense" is no header: it must be "name: value".' });
});

test("values that somebody has written are kept apart from defaults", () => {
  const field = (name: string, source: string) => ({ field: name, value: "1", source, about: "" });
  const { written, usual } = parted([field("a", "default"), field("b", "TrafficPolicy demo/x")]);
  expect([written.map((it) => it.field), usual.map((it) => it.field)]).toEqual([["b"], ["a"]]);
});

test("a fault is told in words", () => {
  const fault = {
    service: "pay.demo", policy: "demo/pay", name: "0", untilMs: 0, delayMs: 2000, delayPercent: 10, abortStatus: 0, abortPercent: 0, callers: [], matches: false,
  };
  expect(inWords(fault)).toBe("10 % delayed by 2 s");
  const narrow = { ...fault, abortStatus: 503, abortPercent: 25, callers: ["web.demo"], matches: true };
  expect(inWords(narrow)).toBe("10 % delayed by 2 s, 25 % answered with 503; only requests of web.demo that it matches");
});
