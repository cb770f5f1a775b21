// The text itself, with its lines counted beside it and those marked in which something is wrong.
import type { RefObject } from "preact";
import type { Fault } from "../../api/problem";

/** An empty text invites to write, too. */
const LEAST_ROWS = 18;

export interface FieldProps {
  area: RefObject<HTMLTextAreaElement | null>;
  text: string;
  faults: readonly Fault[];
  write: (text: string) => void;
  check: () => void;
}

export function Field({ area, text, faults, write, check }: FieldProps) {
  const lines = text.split("\n").length;
  const wrong = new Set(faults.map(({ line }) => line));
  return (
    <div class="edit-field">
      <div class="edit-lines" aria-hidden="true">
        {numbers(lines, wrong)}
      </div>
      <textarea
        id="edit-text"
        ref={area}
        // As high as its text: only the page is scrolled. A line more, so that a bar for scrolling sideways hides none.
        rows={Math.max(lines + 1, LEAST_ROWS)}
        wrap="off"
        spellcheck={false}
        autocomplete="off"
        autocapitalize="off"
        aria-invalid={faults.length > 0}
        aria-describedby="edit-standing"
        value={text}
        onInput={(event) => write(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
          event.preventDefault();
          check();
        }}
      />
    </div>
  );
}

/** Long runs of lines are one text, so that a long document is written as quickly as a short one. */
function numbers(lines: number, wrong: ReadonlySet<number | undefined>) {
  const parts = [];
  let run = "";
  for (let line = 1; line <= lines; line += 1) {
    if (wrong.has(line)) {
      parts.push(run, <strong key={line}>! {line}</strong>, "\n");
      run = "";
    } else run += `${line}\n`;
  }
  return [...parts, run];
}
