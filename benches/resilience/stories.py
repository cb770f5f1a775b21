"""What goes wrong, when, and what is looked at."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from meshes import Running
from processes import LOAD_CORE, Group, Process, tail

HERE = Path(__file__).parent
REPLICAS, RATE = 10, 200.0
# Before anything is measured: connections are made, estimates settle.
WARM = 1.5


@dataclass(frozen=True)
class Story:
    name: str
    # What happens to which replicas, and how many seconds it is well before, is not, and is again.
    fault: str
    which: str
    well: float
    wrong: float
    again: float


STORIES = [
    Story("slow", "slow 20", "0", 3, 8, 0),
    Story("outage", "failing 1", f"0-{REPLICAS - 1}", 2.5, 8, 6),
    Story("flaky", "failing 0.5", "0", 2.5, 7, 0),
]


@dataclass
class Told:
    """Of one run; times are seconds since the warm-up ended."""

    # When a request was due, what it took, and its status or what was wrong with the answer.
    seen: list[tuple[float, float, int | str]]
    # When each replica was called.
    called: list[list[float]]
    # When it went wrong, and when that was over.
    broke: float
    mended: float


class Service:
    """The replicas, in a process of their own."""

    def __init__(self, group: Group, seed: int):
        self.errors = group.folder / "replicas.log"
        self.popen = subprocess.Popen(
            ["taskset", "-c", str(LOAD_CORE), sys.executable, HERE / "replicas.py", str(REPLICAS), str(seed)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors.open("wb"), text=True,
        )  # fmt: skip
        group.callback(Process("replicas", self.popen, self.errors, 0.0).stop)
        self.ports = json.loads(self.popen.stdout.readline())

    def tell(self, command: str) -> float:
        print(command, file=self.popen.stdin, flush=True)
        return time.monotonic()

    def finish(self) -> list[list[float]]:
        output, _ = self.popen.communicate(timeout=20)
        if not output:
            raise RuntimeError(f"the replicas ended early: {tail(self.errors)}")
        return json.loads(output)


def play(story: Story, service: Service, running: Running, scale: float, group: Group) -> Told:
    """Calls at an even rate while the story happens."""
    well, wrong, again = (seconds * scale for seconds in (story.well, story.wrong, story.again))
    whole = WARM + well + wrong + again
    command = [sys.executable, HERE / "caller.py", str(running.entrance), running.host, str(RATE), str(whole)]
    errors = group.folder / "caller.log"
    with errors.open("wb") as log:
        caller = subprocess.Popen(
            ["taskset", "-c", str(LOAD_CORE), *map(str, command)], stdout=subprocess.PIPE, stderr=log, text=True
        )
    group.callback(Process("caller", caller, errors, 0.0).stop)
    zero = float(caller.stdout.readline()) + WARM
    wait_until(zero + well)
    broke = service.tell(f"{story.fault} {story.which}") - zero
    wait_until(zero + well + wrong)
    mended = service.tell(f"well {story.which}") - zero if again else well + wrong
    output, _ = caller.communicate(timeout=whole + 60)
    if not output:
        raise RuntimeError(f"the caller ended early: {tail(errors)}")
    seen = [(due - zero, took, outcome) for due, took, outcome in json.loads(output)]
    called = [[at - zero for at in calls] for calls in service.finish()]
    return Told(seen, called, broke, mended)


def wait_until(when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))
