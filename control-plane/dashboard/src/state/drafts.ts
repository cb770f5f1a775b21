// Texts that somebody has begun to write and not applied: they outlive the page that they are written on, and the browser asks
// before the tab is closed over one.

export interface Draft {
  text: string;
  /** What it began with: the text is somebody's work where it is another. */
  base: string;
  /** The resourceVersion of the document that it began with; `null`: it began with none that is stored. */
  version: string | null;
}

/** By the address of the page. */
const drafts = new Map<string, Draft>();

export function draftAt(address: string): Draft | null {
  return drafts.get(address) ?? null;
}

/** Other pages on which something is still to be applied. */
export function draftsBeside(address: string): string[] {
  return [...drafts.keys()].filter((other) => other !== address);
}

/** Keeps a text in which there is work, and forgets one in which there is none. */
export function keepDraft(address: string, draft: Draft): void {
  if (draft.text === draft.base) drafts.delete(address);
  else drafts.set(address, draft);
  // A listener that is always there would keep browsers from showing the page again as it was.
  if (drafts.size > 0) addEventListener("beforeunload", ask);
  else removeEventListener("beforeunload", ask);
}

function ask(event: BeforeUnloadEvent): void {
  event.preventDefault();
}
