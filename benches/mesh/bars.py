"""What the figures are to reach, pair against pair of the same run, and by how much they do."""

from dataclasses import dataclass

OURS = ("pillion", "pillion-again")
ENVOY, HAPROXY = ("envoy-h2", "envoy-h1"), ("haproxy-h2", "haproxy-h1")


@dataclass(frozen=True)
class Bar:
    """pillion's figure over the best of the others' (the least) is to be at most this."""

    title: str
    scenario: str
    key: str
    against: tuple[str, ...]
    most: float
    percentile: str | None = None


RATIOS = [
    Bar("CPU, saturation", "saturation", "cpu_us", ENVOY, 0.45),
    Bar("CPU, saturation", "saturation", "cpu_us", ("haproxy-h1",), 0.85),
    Bar("CPU, saturation", "saturation", "cpu_us", ("haproxy-h2",), 1.4),
    Bar("CPU, 1,000 requests/s", "rate-1000", "cpu_us", ENVOY, 0.40),
    Bar("CPU, 1,000 requests/s", "rate-1000", "cpu_us", HAPROXY, 1.0),
    Bar("CPU, HTTP/2 1 KiB POST", "http2-post", "cpu_us", ENVOY, 0.45),
    Bar("added p50, 1,000 requests/s", "rate-1000", "added_us", ENVOY, 0.5, "p50"),
    Bar("added p50, 1,000 requests/s", "rate-1000", "added_us", HAPROXY, 1.0, "p50"),
    Bar("added p99, 1,000 requests/s", "rate-1000", "added_us", ENVOY, 0.5, "p99"),
    Bar("added p99, 1,000 requests/s", "rate-1000", "added_us", HAPROXY, 1.0, "p99"),
    Bar("CPU, 10 MiB bodies", "body-10m", "cpu_us", ENVOY, 0.75),
    Bar("CPU, 10 MiB bodies", "body-10m", "cpu_us", HAPROXY, 0.75),
    Bar("CPU, a new connection each", "reconnect", "cpu_us", ENVOY, 0.5),
]
# Key of the memory summary, and the most that it may be.
MEMORY = [
    ("resident idle, MB", "rss_idle_mb", 8.0),
    ("KiB per idle connection", "kib_per_idle_connection", 12.0),
    ("resident, settled after a burst, MB", "rss_settled_mb", 14.0),
]
START_MS, STRIPPED_BYTES = 30.0, 10e6


@dataclass(frozen=True)
class Verdict:
    """Of one bar. `reached` is by each of the two pillion pairs that were measured: where they disagree, noise decides."""

    title: str
    against: str
    most: float
    reached: list[float]

    @property
    def word(self) -> str:
        if not self.reached:
            return "not measured"
        if all(value <= self.most for value in self.reached):
            return "reached"
        return "MISSED" if all(value > self.most for value in self.reached) else "within noise"


def verdicts(summary: dict) -> list[Verdict]:
    """Only what this run measured."""
    found = [ratio(bar, summary["scenarios"]) for bar in RATIOS if bar.scenario in summary["scenarios"]]

    def absolute(title: str, most: float, figures: dict, key: str) -> None:
        known = [figures[pair][key] for pair in OURS if key in figures.get(pair, {})]
        if any(pair in figures for pair in OURS):
            found.append(Verdict(title, "", most, known))

    for title, key, most in MEMORY:
        absolute(title, most, summary["memory"], key)
    absolute("start → first answer, ms", START_MS, summary["start_ms"], "median")
    absolute("stripped program, bytes", STRIPPED_BYTES, summary["size"], "stripped")
    return found


def ratio(bar: Bar, scenarios: dict) -> Verdict:
    def figures(pairs: tuple[str, ...]) -> dict[str, float]:
        known = {}
        for pair in pairs:
            found = scenarios[bar.scenario].get(pair, {}).get(bar.key)
            found = found.get(bar.percentile) if found and bar.percentile else found
            if found:
                known[pair] = found["median"]
        return known

    ours, others = figures(OURS), figures(bar.against)
    # An added latency below nothing is noise, and no base for a ratio: then there is none.
    if not others or min(others.values()) <= 0:
        return Verdict(f"{bar.title}, ratio", " or ".join(bar.against), bar.most, [])
    best = min(others, key=others.get)
    return Verdict(f"{bar.title}, ratio", best, bar.most, [value / others[best] for value in ours.values()])
