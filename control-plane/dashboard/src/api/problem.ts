// What the API says where it does not do what it is asked: a problem document (RFC 9457).

/** One thing that is wrong with what was sent. */
export interface Fault {
  /** Empty: the document, or the text, as a whole. */
  field: string;
  message: string;
  /** "<kind> <namespace>/<name>". */
  document?: string;
  /** Which document of the text, counted from 0. */
  index?: number;
  /** Counted from 1. */
  line?: number;
  column?: number;
}

export interface Problem {
  /** "urn:pillion:problem:<reason>"; empty where nothing was said. */
  type: string;
  title: string;
  /** 0: there was no answer. */
  status: number;
  detail: string;
  faults: Fault[];
}

export async function problemOf(response: Response): Promise<Problem> {
  let said: Partial<Problem> = {};
  try {
    said = (await response.json()) as Partial<Problem>;
  } catch {
    // The status has to do.
  }
  const { type = "", title = `The control plane answered with status ${response.status}.`, detail = "", faults = [] } = said;
  return { type, title, status: response.status, detail, faults };
}

/** No answer came. */
export function silence(detail = "The control plane does not answer."): Problem {
  return { type: "", title: "No answer", status: 0, detail, faults: [] };
}

/** The reason for machines: "conflict". */
export function reasonOf({ type }: Problem): string {
  return type.split(":").pop() ?? "";
}

/** Another token may be allowed it. */
export function wantsToken(problem: Problem): boolean {
  return reasonOf(problem).startsWith("token-");
}

/** There is no token that holds: it is missing, unknown, expired or revoked. One that only does not reach so far is none of these. */
export function lacksToken(problem: Problem): boolean {
  return problem.status === 401 && wantsToken(problem);
}

/** In one line. */
export function inWords({ title, detail, faults }: Problem): string {
  return faults.length > 0 ? faults.map(({ field, message }) => `${field} ${message}`.trim()).join("; ") : detail || title;
}
