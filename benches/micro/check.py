"""`make bench-check`: instruction counts beside the committed baseline. Fails where one has grown by more than 5 %.

`check.py BASELINE [--update]` reads what `instructions` printed as JSON from standard input.
"""

import json
import subprocess
import sys
from pathlib import Path

MOST_GROWTH = 0.05


def counts(text: str) -> dict[str, int]:
    """Instructions by benchmark."""
    found = {}
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        summary, end = decoder.raw_decode(text, at)
        name = "/".join(part for part in (summary["function_name"], summary["id"]) if part)
        found[name] = instructions(summary)
        at = text.find("{", end)
    return found


def instructions(summary: dict) -> int:
    for profile in summary["profiles"]:
        if profile["tool"] == "Callgrind":
            metric = profile["summaries"]["total"]["summary"]["Callgrind"]["Ir"]["metrics"]
            # This run's alone, or beside the last one's.
            value = metric["Left"] if "Left" in metric else metric["Both"][0]
            return value["Int"]
    raise KeyError("no Callgrind profile")


def compiler() -> str:
    return subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def compare(known: dict[str, int], now: dict[str, int]) -> bool:
    """Prints every benchmark, and tells whether all is well."""
    well = True
    width = max(map(len, [*known, *now]))
    for name in sorted({*known, *now}):
        before, after = known.get(name), now.get(name)
        if after is None or before is None:
            word, well = ("is gone" if after is None else "is new"), False
            print(f"{name.ljust(width)}  {before or '–':>12} → {after or '–':>12}  {word}: make bench-baseline")
            continue
        growth = after / before - 1
        grown = growth > MOST_GROWTH
        well = well and not grown
        print(f"{name.ljust(width)}  {before:>12,} → {after:>12,}  {growth:+.1%}{'  GROWN' if grown else ''}")
    return well


def main() -> int:
    file, update = Path(sys.argv[1]), "--update" in sys.argv[2:]
    now = counts(sys.stdin.read())
    if not now:
        print("no instruction counts came in", file=sys.stderr)
        return 1
    if update:
        file.write_text(json.dumps({"compiler": compiler(), "instructions": now}, indent=2) + "\n")
        print(f"written: {file}")
        return 0
    baseline = json.loads(file.read_text())
    if baseline["compiler"] != compiler():
        print(f"the baseline is of {baseline['compiler']}, this is {compiler()}: small differences are its doing")
    return 0 if compare(baseline["instructions"], now) else 1


if __name__ == "__main__":
    sys.exit(main())
