// Light or dark: the system's choice until the reader makes another, which is then kept.
import { useEffect, useState } from "preact/hooks";

export type Theme = "light" | "dark";

const KEY = "pillion-theme";
const systemDark = matchMedia("(prefers-color-scheme: dark)");

function chosen(): Theme | null {
  try {
    const kept = localStorage.getItem(KEY);
    return kept === "light" || kept === "dark" ? kept : null;
  } catch {
    // Storage is denied: the choice lasts as long as the page.
    return null;
  }
}

function system(): Theme {
  return systemDark.matches ? "dark" : "light";
}

function show(choice: Theme | null): void {
  if (choice === null) delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = choice;
}

/** Before the first drawing, so that nothing flashes in the other theme. */
export function applyKeptTheme(): void {
  show(chosen());
}

/** The theme in force, and a switch to the other one. */
export function useTheme(): [Theme, () => void] {
  const [theme, setTheme] = useState<Theme>(() => chosen() ?? system());
  useEffect(() => {
    const follow = () => setTheme(chosen() ?? system());
    systemDark.addEventListener("change", follow);
    return () => systemDark.removeEventListener("change", follow);
  }, []);
  const toggle = () => {
    const next: Theme = theme === "dark" ? "light" : "dark";
    // Choosing what the system says anyway means to follow it again.
    const kept = next === system() ? null : next;
    try {
      if (kept === null) localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, kept);
    } catch {
      // As above.
    }
    show(kept);
    setTheme(next);
  };
  return [theme, toggle];
}

/** The present value of a colour of the style sheet, for drawing on a canvas. */
export function resolvedColour(variable: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${variable})`;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}
