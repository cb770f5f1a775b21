"""`make bench`: pairs of sidecars side by side, round by round. benches/README.md says what is measured, and how."""

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import backend
import bars
import certificates
import memory
import plots
import report
import scenarios
import settings
import startup
import summary
import syscalls
from load import Load
from pairs.base import Pair
from pairs.direct import Direct
from pairs.envoy import Envoy
from pairs.haproxy import HAProxy
from pairs.pillion import ControlPlane, Pillion
from processes import Group, prepare_this_process

PAIRS = ["direct", "tcp-relay", "pillion", "pillion-again", "envoy-h2", "envoy-h1", "haproxy-h2", "haproxy-h1"]
FURTHER = ["memory", "start", "syscalls"]
# The noise can be had without watching the same program twice.
UNWATCHED = ("direct", "pillion-again")


def main() -> int:
    if len(sys.argv) != 3:
        print("`make bench` starts this: with the target folder, and the platform of `make release`", file=sys.stderr)
        return 64
    target, host = Path(sys.argv[1]).resolve(), sys.argv[2]
    names = [scenario.name for scenario in scenarios.SCENARIOS] + FURTHER
    wanted = settings.read(target, host, PAIRS, names)
    if (os.cpu_count() or 1) < 2:
        print("needs two cores: one for the proxies, one for load and backend", file=sys.stderr)
        return 69
    prepare_this_process()
    folder = Path(tempfile.mkdtemp(prefix="pillion-bench-"))
    with Group(folder) as group:
        results = run(group, wanted)
    failed = bool(report.failures(results["summary"]))
    if failed:
        print(f"the logs: {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if failed else 0


def run(group: Group, wanted: settings.Settings) -> dict:
    programs, folder = wanted.programs, group.folder
    served = backend.start(group, programs.nginx)
    issued = certificates.make(folder / "certificates")
    load = Load(programs, served, issued)
    pairs = make_pairs(group, wanted, issued)
    results = {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine()}
    results["settings"] = {"rounds": wanted.rounds, "seconds": wanted.seconds, "settle": wanted.settle}
    results["pairs"] = {pair.name: pair.settings for pair in pairs}
    measurable = {"pillion": programs.proxy_built, "envoy-h2": programs.envoy, "haproxy-h2": programs.haproxy}
    sizes = {pair: startup.size(program) for pair, program in measurable.items()}
    print(f"{results['machine']}; {wanted.rounds} rounds of {wanted.seconds:g} s; {report.NOISE}\n")
    for pair in pairs:
        print(f"{pair.name}: {pair.settings}")
    print(flush=True)

    chosen = [scenario for scenario in scenarios.SCENARIOS if scenario.name in wanted.scenarios]
    measurements = []
    for round in range(wanted.rounds):
        for scenario in chosen:
            carrying = [pair for pair in pairs if pair.carries(scenario.kind)]
            # Everybody is first, and last, in turn.
            for pair in carrying[round % len(carrying) :] + carrying[: round % len(carrying)]:
                own = folder / f"{round}-{scenario.name}-{pair.name}"
                measurement = scenarios.measure(round, scenario, pair, load, own, wanted.seconds)
                measurements.append(measurement)
                progress(measurement)
    sidecars = [pair for pair in pairs if pair.name != "direct"]
    memories: list[memory.Memory] = []
    if "memory" in wanted.scenarios:
        for round in range(max(memory.LEAST_ROUNDS, wanted.rounds)):
            print(f"round {round} memory", flush=True)
            memories += memory.measure(round, sidecars, load, folder / f"{round}-memory", wanted.settle)
    starts = {}
    if "start" in wanted.scenarios:
        print("start", flush=True)
        for pair in sidecars:
            starts[pair.name] = startup.measure(pair, served, folder / "start" / pair.name, 3 * wanted.rounds)
    called = []
    if "syscalls" in wanted.scenarios:
        print("syscalls", flush=True)
        watched = [pair for pair in sidecars if pair.name not in UNWATCHED]
        called = syscalls.measure(watched, load, folder / "syscalls", min(wanted.seconds, 5.0))

    results["machine_after"] = machine()
    results["measurements"] = [measurement.to_json() for measurement in measurements]
    results["memory"] = [asdict(found) for found in memories]
    results["syscalls"] = [asdict(found) for found in called]
    results["summary"] = {
        "scenarios": {scenario.name: summary.of_scenario(scenario, measurements) for scenario in chosen},
        "memory": {
            pair.name: summary.of_memory([found for found in memories if found.pair == pair.name])
            for pair in (sidecars if memories else [])
        },
        "start": {pair: summary.of_starts(taken) for pair, taken in starts.items()},
        "syscalls": {found.pair: summary.of_calls(found) for found in called},
        "size": sizes,
    }
    write(results, wanted.output)
    return results


def make_pairs(group: Group, wanted: settings.Settings, issued: certificates.Certificates) -> list[Pair]:
    programs = wanted.programs
    control_plane = ControlPlane(group, programs.control_plane, issued)
    pairs: list[Pair] = [
        Direct(),
        HAProxy(programs.haproxy, issued, None),
        Pillion("pillion", programs.proxy, control_plane),
        Pillion("pillion-again", programs.proxy, control_plane),
        Envoy(programs.envoy, issued, "h2"),
        Envoy(programs.envoy, issued, "h1"),
        HAProxy(programs.haproxy, issued, "h2"),
        HAProxy(programs.haproxy, issued, "h1"),
    ]
    return [pair for pair in pairs if pair.name in wanted.pairs]


def progress(measurement: scenarios.Measurement) -> None:
    m = measurement
    told = ", ".join(map(bars.one_line, m.faults)) if m.faults else f"{m.requests / m.seconds:,.0f}/s"
    if m.cpu_seconds and not m.faults:
        told += f", {sum(m.cpu_seconds) / m.requests * 1e6:,.1f} µs CPU"
    print(f"round {m.round} {m.scenario} {m.pair}: {told}", flush=True)


def write(results: dict, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    file.write_text(json.dumps(results, indent=1))
    print()
    print(report.tables(results, scenarios.SCENARIOS))
    plotted = plots.write(results, scenarios.SCENARIOS, folder)
    print("written:", ", ".join(str(path) for path in [file, *plotted]))


def machine() -> str:
    """What it ran on, and how busy that was with other things."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, load average {load}"


if __name__ == "__main__":
    sys.exit(main())
