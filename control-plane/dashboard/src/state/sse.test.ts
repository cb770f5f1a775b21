// Events are read however the network cuts them.
import { expect, test } from "vitest";
import { eventReader } from "./sse";

const TEXT = ': keep\n\nevent: request\ndata: {"path":"/ä"}\n\nid: 7\ndata: one\r\ndata: two\r\n\r\nevent: cut';

test.each([1, 2, 3, 7, TEXT.length])("in pieces of %d", (size) => {
  const read = eventReader();
  const events = [];
  for (let at = 0; at < TEXT.length; at += size) events.push(...read(TEXT.slice(at, at + size)));
  expect(events).toEqual([
    { name: "request", data: '{"path":"/ä"}' },
    { name: "", data: "one\ntwo" },
  ]);
});
