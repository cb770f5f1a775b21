"""The figures as tables for a terminal."""

import bars
from scenarios import Scenario
from summary import PERCENTILES

# Figures below this difference mean nothing; see the spread of the A/A pair.
NOISE = "differences below 10 %, or below what the two pillion rows differ by, are nothing"


def table(title: str, columns: list[str], rows: dict[str, list[str]]) -> str:
    widths = [max(len(cells[i]) for cells in [columns, *rows.values()]) for i in range(len(columns))]
    first = max([4, *map(len, rows)])

    def line(name: str, cells: list[str]) -> str:
        return "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths))]).rstrip()

    return "\n".join([title, line("pair", columns), *(line(name, cells) for name, cells in rows.items()), ""])


def number(value: float) -> str:
    """Three digits that count, and no more."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def shown(figure: dict | None) -> str:
    if figure is None:
        return "–"
    spread = f" ±{figure['spread'] * 50:.0f}%" if len(figure["rounds"]) > 1 else ""
    return number(figure["median"]) + spread


def ranged(figure: dict) -> str:
    """With the range over rounds, for differences, whose size says nothing about how much they vary."""
    if len(figure["rounds"]) == 1:
        return number(figure["median"])
    return f"{number(figure['median'])} ({number(min(figure['rounds']))}…{number(max(figure['rounds']))})"


def tables(results: dict, scenarios: list[Scenario]) -> str:
    """Everything in `results["summary"]`."""
    summary, pairs = results["summary"], list(results["pairs"])
    measured = [scenario for scenario in scenarios if scenario.name in summary["scenarios"]]
    parts = []

    def by_scenario(title: str, key: str, only: list[Scenario], relative_to: str | None = None) -> None:
        rows = {}
        for pair in pairs:
            cells = []
            for scenario in only:
                found = summary["scenarios"][scenario.name].get(pair, {})
                base = summary["scenarios"][scenario.name].get(relative_to, {})
                if "failed" in found:
                    cells.append("FAILED")
                elif relative_to is None:
                    cells.append(shown(found.get(key)))
                elif found.get(key) and base.get(key):
                    cells.append(f"{base[key]['median'] / found[key]['median']:.2f}")
                else:
                    cells.append("–")
            if any(cell != "–" for cell in cells):
                rows[pair] = cells
        if rows and only:
            parts.append(table(title, [scenario.name for scenario in only], rows))

    by_scenario("CPU of the pair, µs per request (user + system)", "cpu_us", measured)
    by_scenario("pillion's CPU per request over the pair's (below 1: pillion needs less)", "cpu_us", measured, "pillion")
    by_scenario("Requests per second", "per_second", measured)
    by_scenario("MB per CPU second of the pair", "mb_per_cpu_second", [s for s in measured if s.body])
    for scenario in measured:
        if scenario.rate:
            found = summary["scenarios"][scenario.name]
            added = {pair: found[pair]["added_us"] for pair in pairs if "added_us" in found.get(pair, {})}
            rows = {pair: [ranged(figures[p]) for p in PERCENTILES] for pair, figures in added.items() if pair != "direct"}
            parts.append(table(f"Latency at {scenario.rate:,} requests/s, µs added to direct", [*PERCENTILES], rows))
    parts += memory(summary) + start(summary)
    parts += verdicts(summary)
    parts += failures(summary)
    return "\n".join(parts)


def memory(summary: dict) -> list[str]:
    columns = {
        "idle": "rss_idle_mb",
        "1,000 idle conns": "rss_connections_mb",
        "KiB per conn": "kib_per_idle_connection",
        "after a burst": "rss_burst_mb",
        "settled": "rss_settled_mb",
        "idle, PSS": "pss_idle_mb",
    }
    found = {pair: figures for pair, figures in summary["memory"].items() if "failed" not in figures}
    rows = {pair: [number(figures[key]) for key in columns.values()] for pair, figures in found.items()}
    return [table("Memory of the client's sidecar, MB resident", [*columns], rows)] if rows else []


def start(summary: dict) -> list[str]:
    rows = {}
    for pair, figures in summary["start_ms"].items():
        size = summary["size"].get(pair)
        sizes = [number(size["built"] / 1e6), number(size["stripped"] / 1e6)] if size else ["–", "–"]
        rows[pair] = ["FAILED" if "failed" in figures else shown(figures), *sizes]
    columns = ["start → first answer, ms", "program, MB", "stripped, MB"]
    return [table("Start of the client's sidecar, and size", columns, rows)] if rows else []


def verdicts(summary: dict) -> list[str]:
    """What is to be reached, and whether it is."""
    found = bars.verdicts(summary)
    if not found:
        return []
    first = max(len(verdict.title) for verdict in found)
    lines = ["Bars"]
    for verdict in found:
        reached = " and ".join(map(number, verdict.reached)) or "–"
        against = f"  against {verdict.against}" if verdict.against else ""
        title, most = verdict.title.ljust(first), number(verdict.most)
        lines.append(f"{title}  ≤ {most:>5}  {reached:>13}  {verdict.word}{against}")
    return ["\n".join([*lines, ""])]


def failures(summary: dict) -> list[str]:
    """One line per fault; never left out."""
    lines = []
    for name, pairs in [*summary["scenarios"].items(), ("memory", summary["memory"]), ("start", summary["start_ms"])]:
        for pair, found in pairs.items():
            lines += [f"FAILED {name} {pair}: {fault}" for fault in found.get("failed", [])]
    return lines
