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
# Title, where in the summary it is below the pair's name, and the most that it may be.
ABSOLUTES = [
    ("resident idle, the larger sidecar, MB", "memory", ("larger", "rss_idle_mb", "median"), 8.0),
    ("KiB per idle connection", "memory", ("kib_per_idle_connection", "median"), 12.0),
    ("resident, settled, the larger sidecar, MB", "memory", ("larger", "rss_settled_mb", "median"), 14.0),
    ("start → ready, ms", "start", ("ready_ms", "median"), 30.0),
    ("stripped static program, MB", "size", ("stripped_mb",), 10.0),
]


@dataclass(frozen=True)
class Verdict:
    """Of one bar. `reached` is by each of the pillion pairs that were measured: where they disagree, noise decides."""

    title: str
    against: str
    most: float
    reached: list[float]
    # One line for each pair that has no figure because something failed.
    failed: list[str]

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
    for title, section, path, most in ABSOLUTES:
        pairs = {pair: summary[section][pair] for pair in OURS if pair in summary[section]}
        if pairs:
            known = [at(figures, path) for figures in pairs.values() if "failed" not in figures]
            found.append(Verdict(title, "", most, known, failed(pairs)))
    return found


def at(figures: dict, path: tuple[str, ...]) -> float:
    for key in path:
        figures = figures[key]
    return figures


def failed(pairs: dict[str, dict]) -> list[str]:
    return [f"{pair} failed: {one_line(found['failed'][0])}" for pair, found in pairs.items() if "failed" in found]


def one_line(fault: str) -> str:
    """What is wrong, and the last that the log says of it."""
    lines = fault.strip().splitlines()
    return " … ".join([lines[0], *lines[-1:]] if len(lines) > 1 else lines)


def ratio(bar: Bar, scenarios: dict) -> Verdict:
    pairs = scenarios[bar.scenario]

    def figures(names: tuple[str, ...]) -> dict[str, float]:
        known = {}
        for pair in names:
            found = pairs.get(pair, {}).get(bar.key)
            found = found.get(bar.percentile) if found and bar.percentile else found
            if found:
                known[pair] = found["median"]
        return known

    ours, others = figures(OURS), figures(bar.against)
    faults = failed({pair: pairs[pair] for pair in (*OURS, *bar.against) if pair in pairs})
    title = f"{bar.title}, ratio"
    # An added latency below nothing is noise, and no base for a ratio: then there is none.
    if not others or min(others.values()) <= 0:
        return Verdict(title, " or ".join(bar.against), bar.most, [], faults)
    best = min(others, key=others.get)
    return Verdict(title, best, bar.most, [value / others[best] for value in ours.values()], faults)
