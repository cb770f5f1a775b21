"""How long the client's sidecar takes until it is ready, and until the first right answer; how large programs are."""

import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from backend import SMALL, Backend
from pairs.base import Pair
from processes import FAILURES, Group, answers, until

# Between two looks, seconds. Each costs the core of the control plane a little.
INTERVAL = 0.0002


@dataclass
class Starts:
    """Milliseconds from `exec`, one each per start. The request is sent once the sidecar is ready."""

    ready: list[float] = field(default_factory=list)
    first_answer: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def measure(pair: Pair, backend: Backend, folder: Path, rounds: int) -> Starts:
    """Several starts, and what failed."""
    starts = Starts()
    for round in range(rounds):
        try:
            once(starts, pair, backend, folder / str(round))
        except FAILURES as error:
            starts.faults.append(str(error))
    return starts


def once(starts: Starts, pair: Pair, backend: Backend, folder: Path) -> None:
    """With the server's sidecar already up. pillion gets its certificate and its endpoints from the control plane."""
    folder.mkdir(parents=True)
    with Group(folder) as group:
        server = pair.server_side(group, backend, "http1")
        running = pair.client_side(group, server, "http1")
        since = lambda: (time.perf_counter() - running.processes[0].started) * 1000  # noqa: E731
        until(f"{pair.name} is ready", lambda: pair.ready(running), running.processes, INTERVAL)
        ready = since()
        right = lambda: answers(running.entrance, expected=SMALL)  # noqa: E731
        until(f"{pair.name} answers", right, running.processes, INTERVAL)
        starts.ready.append(ready)
        starts.first_answer.append(since())


def size(program: Path) -> dict[str, float]:
    """MB of a program as built, and without symbols."""
    with tempfile.NamedTemporaryFile() as stripped:
        subprocess.run(["strip", "-o", stripped.name, program], check=True, capture_output=True)
        return {"built_mb": program.stat().st_size / 1e6, "stripped_mb": Path(stripped.name).stat().st_size / 1e6}
