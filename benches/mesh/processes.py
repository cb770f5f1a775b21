"""Processes under measure: pinned to a core, ended when the measure ends, accounted by the kernel."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

# Proxies have this core to themselves; load, backend and control plane share the other.
PROXY_CORE, LOAD_CORE = 0, 1
# Nothing that is waited for takes this long, unless it never comes.
PATIENCE = 20.0


class Failed(Exception):
    """Something did not come up, or did not do what it should. Says what, and what its log said last."""


# What may go wrong with one measure without ending the run.
FAILURES = (Failed, OSError, RuntimeError, subprocess.SubprocessError)


@dataclass
class Process:
    """A running program."""

    name: str
    popen: subprocess.Popen
    log: Path
    # When it began to be this program, by `time.perf_counter`.
    started: float

    @property
    def pid(self) -> int:
        return self.popen.pid

    def cpu_seconds(self) -> float:
        """User and system time of all its threads, also those that have ended, in the scheduler's nanoseconds.

        This is `clock_getcpuclockid(3)`; /proc/PID/stat has the same figure in ticks of 10 ms, too coarse for
        a thousand requests.
        """
        return time.clock_gettime((~self.pid << 3) | 2)

    def memory_kib(self) -> dict[str, int]:
        """Resident (`rss`), and resident with shared pages divided among those that share them (`pss`)."""
        found = {}
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            key, _, value = line.partition(":")
            if key in ("Rss", "Pss"):
                found[key.lower()] = int(value.split()[0])
        return found

    def check(self) -> None:
        """Raises where it has ended by itself."""
        if self.popen.poll() is not None:
            raise Failed(f"{self.name} ended with {self.popen.returncode}:\n{tail(self.log)}")

    def stop(self) -> None:
        """Ends it at once: asked politely, a sidecar first serves its callers for some seconds more."""
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()


class Group(contextlib.ExitStack):
    """Starts processes in a folder, and ends all of them with itself, the last one first."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def start(self, name: str, arguments: list, core: int, environment: dict | None = None) -> Process:
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        # `Popen` returns once `exec` has happened: the fork of this large program before it is not the sidecar's.
        process = Process(name, popen, log, time.perf_counter())
        self.callback(process.stop)
        return process


def prepare_this_process() -> None:
    """Room for thousands of connections, here and in all that is started; this program itself beside the load."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, {LOAD_CORE})
    # Whoever ends this program ends all that it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what: str, probe, processes=(), interval: float = 0.005):
    """Polls until `probe` gives something true, and gives that."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = probe()
        if found:
            return found
        for process in processes:
            process.check()
        if time.monotonic() > deadline:
            logs = "\n".join(f"--- {process.name}\n{tail(process.log)}" for process in processes)
            raise Failed(f"not within {PATIENCE:.0f} s: {what}\n{logs}")
        time.sleep(interval)


def answers(port: int, path: str = "/small", expected: bytes | None = None) -> bool:
    """Whether this port gives the right answer to one HTTP/1.1 request now."""
    request = f"GET {path} HTTP/1.1\r\nhost: backend.bench\r\nconnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(request)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
    except OSError:
        return False
    return answer.startswith(b"HTTP/1.1 200") and (expected is None or answer.endswith(expected))


def tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
