"""The figures as tables for a terminal."""

from collections import Counter

import bars
from pairs.base import HANDSHAKE
from scenarios import Scenario
from summary import PERCENTILES

# Figures below this difference mean nothing; see the spread of the A/A pair.
NOISE = "differences below 10 %, or below what the two pillion rows differ by, are nothing"

# A system call that every sidecar makes less often per request than this has no column.
SELDOM = 0.02


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
    return number(figure["median"]) + spread(figure)


def spread(figure: dict) -> str:
    """Half of the range over rounds, of the median."""
    return f" ±{figure['spread'] * 50:.0f}%" if len(figure["rounds"]) > 1 else ""


def ranged(figure: dict) -> str:
    """With the range over rounds, for differences, whose size says nothing about how much they vary."""
    if len(figure["rounds"]) == 1:
        return number(figure["median"])
    return f"{number(figure['median'])} ({number(min(figure['rounds']))}…{number(max(figure['rounds']))})"


def tables(results: dict, scenarios: list[Scenario]) -> str:
    """Everything in `results["summary"]`."""
    summary, pairs = results["summary"], list(results["pairs"])
    chosen = [scenario for scenario in scenarios if scenario.name in summary["scenarios"]]
    measured = [scenario for scenario in chosen if scenario.kind != HANDSHAKE]
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
    parts += handshakes([scenario for scenario in chosen if scenario.kind == HANDSHAKE], summary["scenarios"])
    parts += memory(summary["memory"]) + start(summary) + syscalls(summary["syscalls"])
    parts += verdicts(summary)
    parts += failures(summary)
    return "\n".join(parts)


def handshakes(measured: list[Scenario], found: dict) -> list[str]:
    """What was agreed on stands beside the figures: not everybody pays for the same mathematics."""
    rows: dict[str, list[str]] = {}
    for scenario in measured:
        for pair, figures in found[scenario.name].items():
            failed = "failed" in figures
            row = ["FAILED" if failed else shown(figures[key]) for key in ("handshake_cpu_us", "per_second")]
            kind = scenario.name.removeprefix("handshake-")
            rows[f"{pair} {kind}"] = [*row, "; ".join(figures.get("agreed", []))]
    title = "TLS handshakes with the server's sidecar (of HTTP/1 pairs: with one request each)"
    return [table(title, ["µs CPU per handshake", "per second", "agreed"], rows)] if rows else []


def memory(summary: dict) -> list[str]:
    moments = {"idle": "idle", "connections": "1,000 idle conns", "burst": "after a burst", "settled": "settled"}
    rows = {}
    for pair, figures in summary.items():
        if "failed" in figures:
            rows[pair] = ["FAILED"] * (len(moments) + 1)
            continue
        for side in ("client", "server"):
            looks = [(figures[side][f"rss_{moment}_mb"], figures[side][f"pss_{moment}_mb"]) for moment in moments]
            cells = [f"{number(rss['median'])} / {number(pss['median'])}{spread(rss)}" for rss, pss in looks]
            rows[f"{pair} {side}"] = [*cells, shown(figures["kib_per_idle_connection"]) if side == "client" else "–"]
    columns = [*moments.values(), "KiB per idle conn"]
    return [table("Memory of both sidecars, MB resident (RSS) / its share (PSS)", columns, rows)] if rows else []


def start(summary: dict) -> list[str]:
    rows = {}
    for pair, figures in summary["start"].items():
        size = summary["size"].get(pair)
        sizes = [number(size[key]) for key in ("built_mb", "stripped_mb")] if size else ["–", "–"]
        times = [shown(figures[key]) if key in figures else "FAILED" for key in ("ready_ms", "first_answer_ms")]
        rows[pair] = [*times, *sizes]
    columns = ["start → ready, ms", "→ first answer, ms", "program, MB", "stripped, MB"]
    return [table("Start of the client's sidecar, and size", columns, rows)] if rows else []


def syscalls(summary: dict) -> list[str]:
    """Per request; kinds that hardly occur anywhere are one column."""
    sides = {f"{pair} {side}": calls for pair, found in summary.items() for side, calls in found["sides"].items()}
    total: Counter = Counter()
    for calls in sides.values():
        total.update(calls)
    kinds = [kind for kind, _ in total.most_common() if max(calls.get(kind, 0.0) for calls in sides.values()) >= SELDOM]
    rows = {}
    for name, calls in sides.items():
        other = sum(count for kind, count in calls.items() if kind not in kinds)
        rows[name] = [f"{count:.2f}" for count in (sum(calls.values()), *(calls.get(k, 0.0) for k in kinds), other)]
    for pair, found in summary.items():
        if "failed" in found:
            rows[pair] = ["FAILED"] * (len(kinds) + 2)
    title = "System calls per request at 1,000 requests/s, counted by strace (which slows everything: not timed)"
    return [table(title, ["all", *kinds, "other"], rows)] if rows else []


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
        lines += [f"    {fault}" for fault in verdict.failed]
    return ["\n".join([*lines, ""])]


def failures(summary: dict) -> list[str]:
    """One line per fault; never left out. The rest of a long one is in the JSON file."""
    sections = {**summary["scenarios"], **{name: summary[name] for name in ("memory", "start", "syscalls")}}
    lines = []
    for name, pairs in sections.items():
        for pair, found in pairs.items():
            lines += [f"FAILED {name} {pair}: {bars.one_line(fault)}" for fault in found.get("failed", [])]
    return lines
