// A row of the list is used again for another request; what has the focus in it is not.
import { type VNode, isValidElement, toChildArray } from "preact";
import { expect, test } from "vitest";
import type { TapEvent } from "../../api/tap";
import { KEPT } from "../../state/tap";
import { Line } from "./requests";

const request: TapEvent = {
  timeMs: 0, sidecar: "web-1", namespace: "demo", direction: "outbound", from: "web.demo", to: "payments.demo", mtls: true, method: "GET", path: "/",
  failed: false, durationMs: 1, segments: [], attempts: 1,
};

/** The first `kind` within. */
function within(node: unknown, kind: string): VNode | undefined {
  if (!isValidElement(node)) return undefined;
  const element = node as VNode<{ children?: Parameters<typeof toChildArray>[0] }>;
  if (element.type === kind) return element;
  return toChildArray(element.props.children).map((child) => within(child, kind)).find((found) => found !== undefined);
}

test("what has come in a request's place has a button of its own, and the same request keeps it", () => {
  const button = (id: number, isChosen = false) => within(Line({ row: { id, request }, isChosen, choose: () => {} }), "button")!;
  expect(button(7 + KEPT).key).not.toBe(button(7).key);
  expect(button(7, true).key).toBe(button(7).key);
});
