"""Medians and spreads of all rounds. What failed in any round has no figures, only faults."""

from statistics import median

from memory import CONNECTIONS, Memory
from pairs.base import HANDSHAKE
from scenarios import Measurement, Scenario
from startup import Starts
from syscalls import Calls

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
    if scenario.kind == HANDSHAKE:
        found["handshake_cpu_us"] = figure([sum(m.cpu_seconds) / m.requests * 1e6 for m in rounds])
        found["agreed"] = sorted({agreed for m in rounds for agreed in m.agreed})
    elif rounds[0].cpu_seconds:
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


def of_memory(rounds: list[Memory]) -> dict:
    """Of one pair: MB of each sidecar at each moment, and of the larger; KiB of the client's per idle connection."""
    faults = [f"round {memory.round}: {fault}" for memory in rounds for fault in memory.faults]
    if faults:
        return {"failed": faults}
    per_connection = [(m.rss["connections"][0] - m.rss["idle"][0]) / CONNECTIONS for m in rounds]
    found = {"kib_per_idle_connection": figure(per_connection)}
    for side, pick in {"client": lambda sides: sides[0], "server": lambda sides: sides[1], "larger": max}.items():
        found[side] = {
            f"{kind}_{moment}_mb": figure([pick(getattr(m, kind)[moment]) * 1024 / 1e6 for m in rounds])
            for kind in ("rss", "pss")
            for moment in rounds[0].rss
        }
    return found


def of_starts(starts: Starts) -> dict:
    """Of one pair."""
    if starts.faults:
        return {"failed": starts.faults}
    return {"ready_ms": figure(starts.ready), "first_answer_ms": figure(starts.first_answer)}


def of_calls(calls: Calls) -> dict:
    """Of one pair: system calls per request, by sidecar and kind."""
    return {"sides": calls.per_request, **({"failed": calls.faults} if calls.faults else {})}
