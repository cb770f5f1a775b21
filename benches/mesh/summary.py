"""Medians and spreads of all rounds. What failed in any round has no figures, only faults."""

from statistics import median

from memory import CONNECTIONS, Memory
from scenarios import Measurement, Scenario

PERCENTILES = ("p50", "p90", "p99", "p99.9")


def figure(values: list[float]) -> dict | None:
    """A median and, relative to it, how far the rounds lie from each other."""
    if not values:
        return None
    middle = median(values)
    spread = (max(values) - min(values)) / abs(middle) if middle else 0.0
    return {"median": middle, "spread": spread, "rounds": values}


def of_scenario(scenario: Scenario, measurements: list[Measurement]) -> dict[str, dict]:
    """By pair."""
    of_pair: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        if measurement.scenario == scenario.name:
            of_pair.setdefault(measurement.pair, []).append(measurement)
    direct = {m.round: m for m in of_pair.get("direct", []) if not m.faults}
    return {pair: of_one(scenario, rounds, direct) for pair, rounds in of_pair.items()}


def of_one(scenario: Scenario, rounds: list[Measurement], direct: dict[int, Measurement]) -> dict:
    faults = [f"round {m.round}: {fault}" for m in rounds for fault in m.faults]
    if faults:
        return {"failed": faults}
    found = {"requests": sum(m.requests for m in rounds)}
    found["per_second"] = figure([m.requests / m.seconds for m in rounds])
    if rounds[0].cpu_seconds:
        found["cpu_us"] = figure([sum(m.cpu_seconds) / m.requests * 1e6 for m in rounds])
        sides = zip(*(m.cpu_seconds for m in rounds))
        found["cpu_us_by_side"] = [
            median(seconds / m.requests * 1e6 for seconds, m in zip(side, rounds)) for side in sides
        ]
        if scenario.body:
            megabytes = [m.requests * scenario.body / 1e6 / sum(m.cpu_seconds) for m in rounds]
            found["mb_per_cpu_second"] = figure(megabytes)
    if rounds[0].latency_us:
        found["latency_us"] = {p: figure([m.latency_us[p] for m in rounds]) for p in PERCENTILES}
        matched = [m for m in rounds if m.round in direct]
        if scenario.rate and matched:
            found["added_us"] = {
                p: figure([m.latency_us[p] - direct[m.round].latency_us[p] for m in matched]) for p in PERCENTILES
            }
    return found


def of_memory(memory: Memory) -> dict:
    """Of the client's sidecar: MB at each moment, and KiB that one idle connection costs."""
    if memory.faults:
        return {"failed": memory.faults}
    idle, connections = memory.rss["idle"][0], memory.rss["connections"][0]
    return {
        **{f"rss_{moment}_mb": sides[0] * 1024 / 1e6 for moment, sides in memory.rss.items()},
        **{f"pss_{moment}_mb": sides[0] * 1024 / 1e6 for moment, sides in memory.pss.items()},
        "kib_per_idle_connection": (connections - idle) / CONNECTIONS,
    }
