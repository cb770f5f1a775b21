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


@dataclass
class Memory:
    """KiB of each process (the client's sidecar first) at each moment: `idle`, `connections`, `burst`, `settled`."""

    pair: str
    rss: dict[str, list[int]] = field(default_factory=dict)
    pss: dict[str, list[int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def look(self, moment: str, running: Running) -> None:
        looks = [process.memory_kib() for process in running.processes]
        self.rss[moment] = [look["rss"] for look in looks]
        self.pss[moment] = [look["pss"] for look in looks]


def measure(pairs: list[Pair], load: Load, folder: Path, settle: float) -> list[Memory]:
    """All pairs run at the same time, so that they are quiet together: memory, unlike time, is not shared."""
    found = []
    with Group(folder) as all_pairs:
        for pair in pairs:
            memory = Memory(pair.name)
            found.append((memory, None, 0.0))
            try:
                own = folder / pair.name
                own.mkdir(parents=True)
                running = start(all_pairs.enter_context(Group(own)), pair, load.backend, "http1")
                if running.processes:
                    strain(memory, running, load)
                    found[-1] = (memory, running, time.monotonic() + settle)
            except FAILURES as error:
                memory.faults.append(str(error))
        for memory, running, when in found:
            if running:
                time.sleep(max(0.0, when - time.monotonic()))
                memory.look("settled", running)
    return [memory for memory, running, _ in found if running or memory.faults]


def strain(memory: Memory, running: Running, load: Load) -> None:
    memory.look("idle", running)
    holding = load.held(running.entrance, CONNECTIONS)
    memory.look("connections", running)
    outcomes = [load.released(holding)]
    burst = ["burst", "--connections", str(CONNECTIONS), "--rounds", str(BURST_ROUNDS)]
    outcomes.append(load.http1(running.entrance, "small", *burst))
    memory.look("burst", running)
    for outcome in outcomes:
        memory.faults += outcome.faults
