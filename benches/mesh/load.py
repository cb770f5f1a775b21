"""Puts load on an entrance and tells what came of it, the wrong answers above all."""

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from backend import SMALL, Backend
from certificates import Certificates
from pairs.base import TlsEntrance
from settings import Programs

# A generator that takes longer hangs: seconds.
LONGEST = 300


@dataclass
class Outcome:
    """Of one load. `sent` is what the backend must have counted."""

    sent: int
    seconds: float
    faults: list[str] = field(default_factory=list)
    latency_us: dict[str, float] = field(default_factory=dict)
    # Key exchange and cipher, of handshakes.
    agreed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """Both generators, in front of one backend, and who they are where they speak TLS."""

    programs: Programs
    backend: Backend
    certificates: Certificates

    def http1(self, entrance: int, path: str, *command: str) -> Outcome:
        """One run of our own generator; it compares every body."""
        command = self.command(entrance, path, *command)
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
        return self.outcome(done.stdout, done.stderr)

    def held(self, entrance: int, connections: int) -> subprocess.Popen:
        """Idle connections, each used once, until [`released`](Load.released)."""
        return self.waiting(entrance, "burst", "--connections", str(connections), "--hold")

    def handshakes(self, entrance: TlsEntrance, resume: bool, connections: int, seconds: float) -> subprocess.Popen:
        """A client with the sessions that it needs; its handshakes begin, and end, with [`released`](Load.released)."""
        c = self.certificates
        files = ["--ca", str(c.root), "--cert", str(c.chain("client")), "--key", str(c.key("client"))]
        asked = ["--alpn", entrance.alpn, "--sni", entrance.server_name]
        amount = ["--connections", str(connections), "--seconds", f"{seconds:g}", "--resume" if resume else "--full"]
        return self.waiting(entrance.port, "handshakes", *files, *asked, *amount)

    def waiting(self, entrance: int, *command: str) -> subprocess.Popen:
        """Our own generator once it has said that it waits for the end of its standard input."""
        command = self.command(entrance, "small", *command)
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        process.stdout.readline()
        return process

    def released(self, waiting: subprocess.Popen) -> Outcome:
        try:
            return self.outcome(*waiting.communicate(timeout=LONGEST))
        except subprocess.TimeoutExpired:
            waiting.kill()
            waiting.communicate()
            raise

    def command(self, entrance: int, path: str, *command: str) -> list[str]:
        expected = self.backend.files / path
        fixed = ["--target", f"127.0.0.1:{entrance}", "--host", "backend.bench", "--path", f"/{path}"]
        return [str(self.programs.load), *fixed, "--expect", str(expected), *command]

    def outcome(self, output: str, errors: str) -> Outcome:
        if not output:
            return Outcome(0, 0.0, [f"pillion-load said nothing: {errors.strip()}"])
        report = json.loads(output.splitlines()[-1])
        faults = [f"{count} × {what}" for what, count in report["wrong"].items()]
        if report["right"] == 0:
            faults.append("not one right answer")
        return Outcome(report["right"], report["seconds"], faults, report["latency_us"], report["agreed"])

    def http2(self, entrance: int, requests: int) -> Outcome:
        """Posts 1 KiB on 8 connections with 8 streams each. h2load counts statuses and bytes, not their content."""
        posted: Path = self.backend.files / "1k"
        fixed = ["-n", requests, "-c", 8, "-m", 8, "-t", 1, "-d", posted, f"http://127.0.0.1:{entrance}/small"]
        command = [self.programs.h2load, *map(str, fixed)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
        statuses = re.search(r"status codes: (\d+) 2xx", done.stdout)
        succeeded = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", done.stdout)
        seconds = re.search(r"finished in ([\d.]+)(s|ms|us)", done.stdout)
        data = re.search(r"\((\d+)\) data", done.stdout)
        if not (statuses and succeeded and seconds and data):
            return Outcome(0, 0.0, [f"h2load: {done.stdout[-300:]}{done.stderr[-300:]}"])
        faults = []
        if not int(statuses[1]) == int(succeeded[1]) == requests:
            faults.append(f"{statuses[1]} of {requests} had status 2xx")
        if int(data[1]) != requests * len(SMALL):
            faults.append(f"{data[1]} bytes instead of {requests * len(SMALL)}")
        unit = {"s": 1.0, "ms": 1e-3, "us": 1e-6}[seconds[2]]
        return Outcome(requests, float(seconds[1]) * unit, faults)
