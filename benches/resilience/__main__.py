"""`make bench-resilience`: what callers notice when a replica is slow, a replica fails, or all do; pillion, Envoy, round robin."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

# How processes are started, and pillion's control plane, are those of `make bench`.
sys.path.append(str(Path(__file__).resolve().parent.parent / "mesh"))

import certificates
import figures
from environment import Environment
from meshes import RECOMMENDED, ROUND_ROBIN, Envoy, Pillion
from pairs.pillion import ControlPlane
from processes import FAILURES, Group, prepare_this_process
from stories import RATE, REPLICAS, STORIES, Service, play

NAMES = {
    "RESILIENCE_ROUNDS": "how often everything is measured (2)",
    "RESILIENCE_SCALE": "what all lengths are multiplied by (1)",
    "RESILIENCE_PROGRAMS": "the folder of pillion and pillion-proxy, instead of what `make release` made",
}


def main() -> int:
    target = Path(sys.argv[1]).resolve()
    told = Environment("RESILIENCE_", NAMES)
    rounds = told.whole("RESILIENCE_ROUNDS", 2, 1)
    scale = told.number("RESILIENCE_SCALE", 1, 0.01)
    programs = told.folder("RESILIENCE_PROGRAMS", target / "dist")
    told.check()
    prepare_this_process()
    folder = Path(tempfile.mkdtemp(prefix="pillion-resilience-"))
    results = {story.name: {} for story in STORIES}
    wrong = []
    with Group(folder) as group:
        control_plane = ControlPlane(group, programs / "pillion", certificates.make(folder / "certificates"))
        proxy, envoy = programs / "pillion-proxy", target / "tools/bin/envoy"
        meshes = [
            Pillion(proxy, control_plane),
            Envoy(envoy, RECOMMENDED),
            Envoy(envoy, ROUND_ROBIN),
        ]
        print(f"{REPLICAS} replicas, {RATE:g} requests/s at an even rate")
        for mesh in meshes:
            print(f"{mesh.name}: {mesh.settings}")
        for round in range(rounds):
            for story in STORIES:
                turn = round % len(meshes)
                for mesh in meshes[turn:] + meshes[:turn]:
                    own = folder / f"{round}-{story.name}-{mesh.name.replace(' ', '-')}"
                    own.mkdir()
                    try:
                        with Group(own) as processes:
                            service = Service(processes, seed=round)
                            answers = play(story, service, mesh.start(processes, service.ports), scale, processes)
                    except FAILURES as failure:
                        wrong.append(f"{story.name}, {mesh.name}: {failure}")
                        print(wrong[-1], flush=True)
                        continue
                    wrong += [f"{story.name}, {mesh.name}: {fault}" for fault in figures.faults(answers)]
                    found = figures.of(story, answers)
                    results[story.name].setdefault(mesh.name, []).append(found)
                    shown = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
                    print(f"round {round} {story.name} {mesh.name}: {shown}", flush=True)
    output = target / "bench"
    output.mkdir(parents=True, exist_ok=True)
    (output / "resilience.json").write_text(json.dumps(results, indent=1))
    print(f"\n{figures.table(results)}\n")
    if wrong:
        print("\n".join(wrong), f"the logs: {folder}", sep="\n", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
