// A question of the form as the control plane takes it.
import type { Question } from "../route";

export interface Body {
  from: string;
  to: string;
  method: string;
  path: string;
  headers: { name: string; value: string }[];
}

/** Reads the lines of headers; a line that is none is a fault. */
export function body(question: Question): { body: Body } | { fault: string } {
  const headers: Body["headers"] = [];
  for (const line of question.headers.split("\n").map((text) => text.trim())) {
    if (line === "") continue;
    const colon = line.indexOf(":");
    if (colon < 1) return { fault: `"${line}" is no header: it must be "name: value".` };
    headers.push({ name: line.slice(0, colon).trim(), value: line.slice(colon + 1).trim() });
  }
  const { from, to, method, path } = question;
  return { body: { from: from.trim(), to: to.trim(), method, path: path.trim() || "/", headers } };
}
