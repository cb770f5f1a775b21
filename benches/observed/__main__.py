"""`make bench-observed`: what it costs a pair of sidecars to be looked at. benches/README.md says what is measured, and how."""

import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

# How processes are started, loaded and accounted is that of `make bench`.
sys.path.append(str(Path(__file__).resolve().parent.parent / "mesh"))

import backend
import certificates
import scenarios
from environment import Environment
from load import Load
from looks import LOOKS, Looked
from pairs.pillion import ControlPlane
from processes import Group, prepare_this_process
from settings import Programs

NAMES = {
    "OBSERVED_ROUNDS": "how often everything is measured; medians are taken over rounds (7)",
    "OBSERVED_SECONDS": "how long each measure takes (10)",
    "OBSERVED_PROGRAMS": "the folder of pillion and pillion-proxy, instead of what `make release` made",
}
# All of it together may take so much more CPU per request than none of it.
MOST = 0.08
MEASURED = ("saturation", "rate-2000")


def main() -> int:
    target = Path(sys.argv[1]).resolve()
    environment = Environment("OBSERVED_", NAMES)
    rounds = environment.whole("OBSERVED_ROUNDS", 7, 1)
    seconds = environment.number("OBSERVED_SECONDS", 10, 0.1)
    used = programs(target, environment)
    environment.check()
    prepare_this_process()
    folder = Path(tempfile.mkdtemp(prefix="pillion-observed-"))
    with Group(folder) as group:
        measurements = run(group, used, rounds, seconds)
    output = target / "bench"
    output.mkdir(parents=True, exist_ok=True)
    (output / "observed.json").write_text(json.dumps([measured.to_json() for measured in measurements], indent=1))
    wrong = [f"{m.scenario}, {m.pair}: {fault}" for m in measurements for fault in m.faults]
    if wrong:
        print("\n".join(wrong), f"the logs: {folder}", sep="\n", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0 if told(measurements) else 1


def programs(target: Path, environment: Environment) -> Programs:
    """Those that are used; the others of `make bench` are not."""
    built = environment.folder("OBSERVED_PROGRAMS", target / "dist")
    proxy, none = environment.program(built / "pillion-proxy"), Path("/nonexistent")
    return Programs(
        proxy=proxy,
        proxy_built=proxy,
        control_plane=environment.program(built / "pillion"),
        load=environment.program(target / "release/pillion-load"),
        envoy=none,
        haproxy=none,
        nginx=environment.program("nginx"),
        h2load=none,
        strace=none,
    )


def run(group: Group, used: Programs, rounds: int, seconds: float) -> list[scenarios.Measurement]:
    served = backend.start(group, used.nginx)
    issued = certificates.make(group.folder / "certificates")
    load = Load(used, served, issued)
    control_plane = ControlPlane(group, used.control_plane, issued)
    pairs = [Looked(look, used.proxy, control_plane) for look in LOOKS]
    for pair in pairs:
        print(f"{pair.name}: {pair.settings}")
    measurements = []
    for round in range(rounds):
        for scenario in (scenario for scenario in scenarios.SCENARIOS if scenario.name in MEASURED):
            turn = round % len(pairs)
            # Everybody is first, and last, in turn.
            for pair in pairs[turn:] + pairs[:turn]:
                own = group.folder / f"{round}-{scenario.name}-{pair.name}"
                measured = scenarios.measure(round, scenario, pair, load, own, seconds)
                measurements.append(measured)
                shown = ", ".join(measured.faults) or f"{per_request(measured):.2f} µs CPU a request"
                print(f"round {round} {scenario.name} {pair.name}: {shown}", flush=True)
    return measurements


def per_request(measured: scenarios.Measurement) -> float:
    """Of both sidecars together, microseconds."""
    return sum(measured.cpu_seconds or []) / max(measured.requests, 1) * 1e6


def told(measurements: list[scenarios.Measurement]) -> bool:
    """Prints a table, and tells whether all is within bounds. A round's measures are beside each other in time: the median is
    of what a round's measure is beside the same round's without any look."""
    print(f"\n| load | {' | '.join(look.name for look in LOOKS)} |\n|---|{'---:|' * len(LOOKS)}")
    well = True
    for scenario in MEASURED:
        costs = {(m.pair, m.round): per_request(m) for m in measurements if m.scenario == scenario}
        rounds = sorted({round for _, round in costs})
        cells = []
        for look in LOOKS:
            median = statistics.median(costs[look.name, round] for round in rounds)
            more = statistics.median(costs[look.name, round] / costs[LOOKS[0].name, round] - 1 for round in rounds)
            cells.append(f"{median:.2f} µs" if look is LOOKS[0] else f"{median:.2f} µs ({more:+.1%})")
            if look is LOOKS[-1] and more > MOST:
                well = False
        print(f"| {scenario} | {' | '.join(cells)} |")
    print(f"\n{'within' if well else 'NOT within'} {MOST:.0%} for all of it together")
    return well


if __name__ == "__main__":
    sys.exit(main())
