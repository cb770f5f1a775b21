// Documents as YAML: what people would write, and nothing that reads as something else.
import { expect, test } from "vitest";
import { toYaml } from "./yaml";

test("a document looks as people write it", () => {
  const document = {
    apiVersion: "gateway.networking.k8s.io/v1",
    kind: "HTTPRoute",
    metadata: { name: "payments", namespace: "demo", labels: {} },
    spec: {
      parentRefs: [{ group: "", kind: "Service", name: "payments" }],
      rules: [{ matches: [{ path: { type: "PathPrefix", value: "/" } }], backendRefs: [{ name: "payments-v1", weight: 90 }, { name: "payments-v2", weight: 10 }] }],
      hostnames: [],
    },
  };
  expect(toYaml(document)).toBe(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: payments
  namespace: demo
  labels: {}
spec:
  parentRefs:
  - group: ""
    kind: Service
    name: payments
  rules:
  - matches:
    - path:
        type: PathPrefix
        value: /
    backendRefs:
    - name: payments-v1
      weight: 90
    - name: payments-v2
      weight: 10
  hostnames: []
`);
});

test.each([
  ["true", '"true"'], ["No", '"No"'], ["null", '"null"'], ["", '""'], ["10", '"10"'], ["1.5s", "1.5s"], ["250ms", "250ms"], ["1e3", '"1e3"'], ["0x1F", '"0x1F"'], ["1_000", '"1_000"'], ["12:30", '"12:30"'], ["10.0.0.1", '"10.0.0.1"'], ["2026-01-01T00:00:00Z", '"2026-01-01T00:00:00Z"'], ["- x", '"- x"'], ["a: b", '"a: b"'], ["a #b", '"a #b"'],
  ["*", '"*"'], ["tab\u0001", '"tab\\u0001"'], ["plain words", "plain words"], ["http://x/y", "http://x/y"], ["/path", "/path"], ["@x", '"@x"'], ["x:", '"x:"'],
])("the text %j is written %s", (value, written) => expect(toYaml({ value })).toBe(`value: ${written}\n`));

test("numbers, truth and nothing stay what they are", () => {
  expect(toYaml({ a: 1, b: false, c: null, d: [1, "1"] })).toBe('a: 1\nb: false\nc: null\nd:\n- 1\n- "1"\n');
});

test("many lines stay many lines", () => {
  expect(toYaml({ spec: { text: "one\n two\n" }, end: "x" })).toBe("spec:\n  text: |\n    one\n     two\nend: x\n");
  expect(toYaml({ text: "one\ntwo" })).toBe("text: |-\n  one\n  two\n");
});
