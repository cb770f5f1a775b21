"""What is measured, one line each, and how one measure is taken."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from backend import SMALL, Backend
from load import Load, Outcome
from pairs.base import HANDSHAKE, Pair, Running
from processes import FAILURES, Failed, Group, answers, until
from sockets import listens


@dataclass(frozen=True)
class Scenario:
    """One kind of load."""

    name: str
    title: str
    kind: str
    path: str = "small"
    connections: int = 64
    rate: int | None = None
    reconnect: bool = False
    # Of handshakes: whether they resume a session.
    resume: bool = False
    # Bytes of each response's body, where CPU per byte says more than CPU per request.
    body: int | None = None

    def put_on(self, load: Load, entrance: int, seconds: float) -> Outcome:
        if self.kind == "http2":
            # Counted, not timed: h2load then ends with every request answered. At about the rate that pairs reach, so
            # that a measure takes about as long as the others.
            return load.http2(entrance, max(64, int(20_000 * seconds)))
        command = ["steady", "--connections", str(self.connections), "--seconds", f"{seconds:g}"]
        if self.rate:
            command += ["--rate", str(self.rate)]
        if self.reconnect:
            command.append("--reconnect")
        return load.http1(entrance, self.path, *command)


SCENARIOS = [
    Scenario("saturation", "HTTP/1, 64 connections, as fast as it goes", "http1"),
    Scenario("rate-1000", "HTTP/1, 1,000 requests/s on 16 connections", "http1", connections=16, rate=1000),
    Scenario("rate-2000", "HTTP/1, 2,000 requests/s on 16 connections", "http1", connections=16, rate=2000),
    Scenario("http2-post", "HTTP/2, 1 KiB POST, 8 connections × 8 streams", "http2"),
    Scenario("body-64k", "HTTP/1, 64 KiB bodies, 16 connections", "http1", "64k", 16, body=64 << 10),
    Scenario("body-10m", "HTTP/1, 10 MiB bodies, 4 connections", "http1", "10m", 4, body=10 << 20),
    Scenario("tcp", "opaque TCP (HTTP/1 inside), 64 connections", "tcp"),
    Scenario("tcp-reconnect", "opaque TCP, a new connection each, 16 at a time", "tcp", connections=16, reconnect=True),
    Scenario("reconnect", "HTTP/1, a new connection each, 16 at a time", "http1", connections=16, reconnect=True),
    Scenario("handshake-full", "full TLS handshakes, 8 at a time", HANDSHAKE, connections=8),
    Scenario("handshake-resumed", "resumed TLS handshakes, 8 at a time", HANDSHAKE, connections=8, resume=True),
]


@dataclass
class Measurement:
    """One scenario on one pair in one round."""

    round: int
    scenario: str
    pair: str
    faults: list[str]
    requests: int = 0
    seconds: float = 0.0
    # Of the pair's two processes (the client's sidecar first), user and system; of handshakes, the server's only.
    cpu_seconds: list[float] | None = None
    latency_us: dict[str, float] | None = None
    # Key exchange and cipher, of handshakes.
    agreed: list[str] = field(default_factory=list)

    def to_json(self) -> dict:
        return asdict(self)


def measure(round: int, scenario: Scenario, pair: Pair, load: Load, folder: Path, seconds: float) -> Measurement:
    """Starts the pair afresh, warms it up, and measures. What fails is in the result."""
    result = Measurement(round, scenario.name, pair.name, [])
    folder.mkdir(parents=True)
    try:
        with Group(folder) as group:
            take = take_handshakes if scenario.kind == HANDSHAKE else take_requests
            take(result, group, scenario, pair, load, seconds)
    except FAILURES as error:
        result.faults.append(str(error))
    return result


def take_requests(
    result: Measurement, group: Group, scenario: Scenario, pair: Pair, load: Load, seconds: float
) -> None:
    """Requests through the pair."""
    running = start(group, pair, load.backend, scenario.kind)
    must_be_right("warming up", scenario.put_on(load, running.entrance, min(1.0, seconds / 3)))
    before, counted = running.cpu_seconds(), load.backend.requests()
    outcome = scenario.put_on(load, running.entrance, seconds)
    fill(result, running, load, (before, counted), outcome, asked=outcome.sent)


def take_handshakes(
    result: Measurement, group: Group, scenario: Scenario, pair: Pair, load: Load, seconds: float
) -> None:
    """Handshakes with the server's sidecar alone. Those that the resumed ones come from are made before it counts."""
    running = pair.server_side(group, load.backend, scenario.kind)
    entrance = pair.tls_entrance(running)
    client = lambda seconds: load.handshakes(entrance, scenario.resume, scenario.connections, seconds)  # noqa: E731
    must_be_right("warming up", load.released(client(min(1.0, seconds / 3))))
    waiting = client(seconds)
    before, counted = running.cpu_seconds(), load.backend.requests()
    outcome = load.released(waiting)
    # HTTP/1 says nothing after a handshake before it is asked; HTTP/2 does.
    asked = outcome.sent if entrance.alpn == "http/1.1" else 0
    fill(result, running, load, (before, counted), outcome, asked)


def must_be_right(doing: str, outcome: Outcome) -> None:
    """Of a load that is not itself measured."""
    if outcome.faults:
        raise Failed(f"while {doing}: " + ", ".join(outcome.faults))


def fill(
    result: Measurement, running: Running, load: Load, before: tuple[list[float], int], outcome: Outcome, asked: int
) -> None:
    """What came of a load, right after it, and whether the backend was asked as often. `before` it: CPU and count."""
    result.cpu_seconds = [late - early for early, late in zip(before[0], running.cpu_seconds())]
    result.faults += outcome.faults
    counted = load.backend.requests() - before[1]
    if counted != asked:
        result.faults.append(f"{asked} answers, but the backend counted {counted} requests")
    result.requests, result.seconds = outcome.sent, outcome.seconds
    result.latency_us, result.agreed = outcome.latency_us, outcome.agreed
    for process in running.processes:
        process.check()


def start(group: Group, pair: Pair, backend: Backend, kind: str) -> Running:
    """A pair that has given its first right answer."""
    server = pair.server_side(group, backend, kind)
    running = pair.client_side(group, server, kind)
    if kind == "http2":
        # It speaks HTTP/2 only; h2load's warm-up checks the answers.
        until(f"{pair.name} listens", lambda: listens(running.entrance), running.processes)
    else:
        right = lambda: answers(running.entrance, expected=SMALL)  # noqa: E731
        until(f"{pair.name} answers", right, running.processes)
    return running
