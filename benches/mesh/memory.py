"""What the sidecars hold in memory: idle, with idle connections, right after a burst, and after some quiet."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from load import Load
from pairs.base import Pair, Running
from processes import FAILURES, Group
from scenarios import start

CONNECTIONS = 1000
BURST_ROUNDS = 5
# Seconds after the first answer, or the last use of a connection, by when a sidecar has done what it puts off.
CALM = 3.0
# One look says nothing about how much looks differ.
LEAST_ROUNDS = 2


@dataclass
class Memory:
    """KiB of each process (the client's sidecar first) at each moment: `idle`, `connections`, `burst`, `settled`."""

    round: int
    pair: str
    rss: dict[str, list[int]] = field(default_factory=dict)
    pss: dict[str, list[int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def look(self, moment: str, running: Running) -> None:
        looks = [process.memory_kib() for process in running.processes]
        self.rss[moment] = [look["rss"] for look in looks]
        self.pss[moment] = [look["pss"] for look in looks]


def measure(round: int, pairs: list[Pair], load: Load, folder: Path, settle: float) -> list[Memory]:
    """All pairs run at the same time, so that they are quiet together: memory, unlike time, is not shared."""
    found: list[Memory] = []
    quiet: list[tuple[Memory, Running, float]] = []
    with Group(folder) as all_pairs:
        for pair in pairs:
            memory, own = Memory(round, pair.name), folder / pair.name
            found.append(memory)
            try:
                own.mkdir(parents=True)
                running = start(all_pairs.enter_context(Group(own)), pair, load.backend, "http1")
                strain(memory, running, load)
                quiet.append((memory, running, time.monotonic() + settle))
            except FAILURES as error:
                memory.faults.append(str(error))
        for memory, running, when in quiet:
            time.sleep(max(0.0, when - time.monotonic()))
            try:
                memory.look("settled", running)
            except FAILURES as error:
                memory.faults.append(str(error))
    return found


def strain(memory: Memory, running: Running, load: Load) -> None:
    time.sleep(CALM)
    memory.look("idle", running)
    holding = load.held(running.entrance, CONNECTIONS)
    time.sleep(CALM)
    memory.look("connections", running)
    outcomes = [load.released(holding)]
    burst = ["burst", "--connections", str(CONNECTIONS), "--rounds", str(BURST_ROUNDS)]
    outcomes.append(load.http1(running.entrance, "small", *burst))
    memory.look("burst", running)
    for outcome in outcomes:
        memory.faults += outcome.faults
