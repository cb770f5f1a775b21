"""The figures as SVG: one bar per pair, grouped by scenario, with the range over rounds."""

from html import escape
from pathlib import Path

from report import number
from scenarios import Scenario
from summary import PERCENTILES

WIDTH, LABELS, FIGURES, BAR, GAP = 760, 130, 90, 16, 5
COLOURS = {"pillion": "#0f766e", "envoy": "#b45309", "haproxy": "#4f46e5", "tcp-relay": "#6b7280", "direct": "#9ca3af"}
MEMORY = {
    "rss_idle_mb": "idle",
    "rss_connections_mb": "1,000 idle connections",
    "rss_settled_mb": "settled after a burst",
}
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2937}.title{font-size:15px;font-weight:600}.group{font-weight:600}"
    ".note{fill:#6b7280}.range{stroke:#111827;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){text{fill:#e5e7eb}.note{fill:#9ca3af}.range{stroke:#f9fafb}}"
)


def colour(pair: str) -> str:
    return next((colour for name, colour in COLOURS.items() if pair.startswith(name)), "#6b7280")


def bars(title: str, note: str, groups: list[tuple[str, dict[str, dict]]]) -> str:
    """`groups`: a heading, and by pair a figure with its rounds. Each group has a scale of its own, from zero."""
    y, parts = 48, []
    room = WIDTH - LABELS - FIGURES
    for heading, figures in groups:
        parts.append(f'<text class="group" x="8" y="{y + 12}">{escape(heading)}</text>')
        y += 22
        largest = max(max(figure["rounds"]) for figure in figures.values())
        # Added latencies can all be below nothing, by noise.
        largest = largest if largest > 0 else 1.0
        for pair, figure in figures.items():
            length, middle = max(0.0, figure["median"] / largest * room), y + BAR / 2
            parts.append(f'<text x="{LABELS - 8}" y="{y + 12}" text-anchor="end">{escape(pair)}</text>')
            size = f'width="{length:.1f}" height="{BAR}"'
            parts.append(f'<rect x="{LABELS}" y="{y}" {size} rx="2" fill="{colour(pair)}"/>')
            if len(figure["rounds"]) > 1:
                least, most = (LABELS + max(0.0, end(figure["rounds"])) / largest * room for end in (min, max))
                parts.append(f'<line class="range" x1="{least:.1f}" x2="{most:.1f}" y1="{middle}" y2="{middle}"/>')
            shown = number(figure["median"])
            parts.append(f'<text x="{LABELS + room + 10}" y="{y + 12}">{shown}</text>')
            y += BAR + GAP
        y += 12
    head = f'<text class="title" x="8" y="20">{escape(title)}</text>'
    head += f'<text class="note" x="8" y="38">{escape(note)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img" '
        f'aria-label="{escape(title)}"><style>{STYLE}</style>{head}{"".join(parts)}</svg>\n'
    )


def write(results: dict, scenarios: list[Scenario], folder: Path) -> list[Path]:
    """One file per measure that there are figures for."""
    summary = results["summary"]
    note = "less is better; medians over rounds, with the range as a line; each group has its own scale"

    def groups(key: str, percentile: str | None = None) -> list[tuple[str, dict]]:
        found = []
        for scenario in scenarios:
            figures = {}
            for pair, figure in summary["scenarios"].get(scenario.name, {}).items():
                figure = figure.get(key)
                figure = figure.get(percentile) if figure and percentile else figure
                if figure and not (percentile and pair == "direct"):
                    figures[pair] = figure
            if figures:
                found.append((scenario.title, figures))
        return found

    def latency(name: str) -> list[tuple[str, dict]]:
        found = summary["scenarios"].get(name, {})
        added = {pair: figures["added_us"] for pair, figures in found.items() if "added_us" in figures}
        added.pop("direct", None)
        by_percentile = {p: {pair: figures[p] for pair, figures in added.items()} for p in PERCENTILES}
        return [(f"{p[1:]}th percentile", figures) for p, figures in by_percentile.items() if figures]

    memory = []
    for key, heading in MEMORY.items():
        figures = {pair: found["larger"][key] for pair, found in summary["memory"].items() if "larger" in found}
        if figures:
            memory.append((heading, figures))
    plots = {
        "cpu.svg": ("CPU of the pair, µs per request", groups("cpu_us")),
        "handshakes.svg": ("CPU of the server's sidecar, µs per TLS handshake", groups("handshake_cpu_us")),
        "latency-1000.svg": ("Latency added to direct at 1,000 requests/s, µs", latency("rate-1000")),
        "added-p50.svg": ("Added latency, median, µs", groups("added_us", "p50")),
        "added-p99.svg": ("Added latency, 99th percentile, µs", groups("added_us", "p99")),
        "memory.svg": ("Resident memory of the larger sidecar, MB", memory),
    }
    written = []
    for name, (title, content) in plots.items():
        if content:
            (folder / name).write_text(bars(title, note, content))
            written.append(folder / name)
    return written
