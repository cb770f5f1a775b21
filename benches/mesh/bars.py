"""What the figures are to reach, pair against pair of the same run, and by how much they do."""

from dataclasses import dataclass

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
START_MS, STRIPPED_MB = 30.0, 10.0


@dataclass(frozen=True)
class Verdict:
    title: str
    against: str
    most: float
    # None where it could not be measured.
    reached: float | None

    @property
    def word(self) -> str:
        if self.reached is None:
            return "not measured"
        return "reached" if self.reached <= self.most else "MISSED"


def verdicts(summary: dict) -> list[Verdict]:
    """Only what this run measured."""
    found = [ratio(bar, summary["scenarios"]) for bar in RATIOS if bar.scenario in summary["scenarios"]]
    memory = summary["memory"].get("pillion")
    if memory:
        found += [Verdict(title, "–", most, memory.get(key)) for title, key, most in MEMORY]
    start = summary["start_ms"].get("pillion")
    if start:
        found.append(Verdict("start → first answer, ms", "–", START_MS, start.get("median")))
        size = summary["size_mb"]["pillion"]["stripped"] / 1e6
        found.append(Verdict("stripped program, MB", "–", STRIPPED_MB, size))
    return found


def ratio(bar: Bar, scenarios: dict) -> Verdict:
    def figure(pair: str) -> float | None:
        found = scenarios[bar.scenario].get(pair, {}).get(bar.key)
        found = found.get(bar.percentile) if found and bar.percentile else found
        # An added latency below nothing is noise, and no base for a ratio.
        return found["median"] if found and found["median"] > 0 else None

    ours, others = figure("pillion"), {pair: figure(pair) for pair in bar.against}
    known = {pair: value for pair, value in others.items() if value is not None}
    if ours is None or not known:
        return Verdict(bar.title, "/".join(bar.against), bar.most, None)
    best = min(known, key=known.get)
    return Verdict(f"{bar.title}, ratio", best, bar.most, ours / known[best])
