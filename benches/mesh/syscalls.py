"""Which system calls a request costs each sidecar, counted by strace. That slows them: nothing is timed meanwhile."""

import signal
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from load import Load
from pairs.base import Pair
from processes import FAILURES, Failed, Group, Process, until
from scenarios import Scenario, must_be_right, start

LOAD = Scenario("syscalls", "HTTP/1, 1,000 requests/s on 16 connections", "http1", connections=16, rate=1000)
SIDES = ("client", "server")


@dataclass
class Calls:
    """Of one pair: by sidecar and system call, how many a request takes."""

    pair: str
    per_request: dict[str, dict[str, float]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def measure(pairs: list[Pair], load: Load, folder: Path, seconds: float) -> list[Calls]:
    """One sidecar after the other, so that being watched slows only one of a pair."""
    found = []
    for pair in pairs:
        calls, own = Calls(pair.name), folder / pair.name
        own.mkdir(parents=True)
        try:
            with Group(own) as group:
                running = start(group, pair, load.backend, LOAD.kind)
                must_be_right("warming up", LOAD.put_on(load, running.entrance, min(1.0, seconds)))
                for side, process in zip(SIDES, running.processes):
                    counts, requests = watched(process, load, running.entrance, own / f"{side}.strace", seconds)
                    calls.per_request[side] = {name: count / requests for name, count in counts.most_common()}
        except FAILURES as error:
            calls.faults.append(str(error))
        found.append(calls)
    return found


def watched(process: Process, load: Load, entrance: int, file: Path, seconds: float) -> tuple[Counter, int]:
    """What this process called during a load, and how many requests that was."""
    command = [load.programs.strace, "-f", "-c", "-U", "calls,name", "-o", file, "-p", str(process.pid)]
    strace = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        until("strace watches", lambda: is_watched(process, strace))
        outcome = LOAD.put_on(load, entrance, seconds)
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate(timeout=10)
    must_be_right("strace watched", outcome)
    process.check()
    return counted(file.read_text()), outcome.sent


def is_watched(process: Process, strace: subprocess.Popen) -> bool:
    """Whether all threads are traced."""
    if strace.poll() is not None:
        raise Failed(f"strace: {strace.stderr.read().decode().strip()}")
    statuses = [thread / "status" for thread in Path(f"/proc/{process.pid}/task").iterdir()]
    return all("TracerPid:\t0\n" not in status.read_text() for status in statuses)


def counted(summary: str) -> Counter:
    """From strace's table: lines of a count and a name, between rules, with a total at the end."""
    rows = (line.split() for line in summary.splitlines())
    return Counter({row[1]: int(row[0]) for row in rows if len(row) == 2 and row[0].isdigit() and row[1] != "total"})
