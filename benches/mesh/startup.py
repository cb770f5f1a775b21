"""How long the client's sidecar takes from its start to its first right answer, and how large the programs are."""

import subprocess
import tempfile
import time
from pathlib import Path

from backend import SMALL, Backend
from pairs.base import Pair
from processes import FAILURES, Group, answers, until


def milliseconds(pair: Pair, backend: Backend, folder: Path) -> float:
    """With the server's sidecar already up. For pillion this includes getting its certificate and its endpoints."""
    folder.mkdir(parents=True)
    with Group(folder) as group:
        server = pair.server_side(group, backend, "http1")
        started = time.perf_counter()
        running = pair.client_side(group, server, "http1")
        right = lambda: answers(running.entrance, expected=SMALL)  # noqa: E731
        until(f"{pair.name} answers", right, running.processes, interval=0.0005)
        return (time.perf_counter() - started) * 1000


def measure(pair: Pair, backend: Backend, folder: Path, rounds: int) -> tuple[list[float], list[str]]:
    """One figure per round, and what failed."""
    taken, faults = [], []
    for round in range(rounds):
        try:
            taken.append(milliseconds(pair, backend, folder / str(round)))
        except FAILURES as error:
            faults.append(str(error))
    return taken, faults


def size(program: Path) -> dict[str, int]:
    """Bytes of a program as built, and without symbols."""
    with tempfile.NamedTemporaryFile() as stripped:
        subprocess.run(["strip", "-o", stripped.name, program], check=True, capture_output=True)
        return {"built": program.stat().st_size, "stripped": Path(stripped.name).stat().st_size}
