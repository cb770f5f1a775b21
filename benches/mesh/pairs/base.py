"""What a pair of sidecars is to the rest: started for one kind of traffic, it has an entrance and processes."""

from dataclasses import dataclass, field
from typing import Protocol

from backend import Backend
from processes import Group, Process

# Kinds of traffic, by what the client speaks; `tcp` carries HTTP/1 that the sidecars must not look into.
KINDS = ("http1", "http2", "tcp")
# No traffic of an application's: handshakes with the server's sidecar, as a client's sidecar makes them.
HANDSHAKE = "handshake"


@dataclass
class Running:
    """A started pair: where the client connects, and the processes that are measured (the client's sidecar first)."""

    entrance: int
    processes: list[Process] = field(default_factory=list)
    # The operators' port of the first process; 0: it has none.
    admin: int = 0

    def cpu_seconds(self) -> list[float]:
        return [process.cpu_seconds() for process in self.processes]


@dataclass(frozen=True)
class TlsEntrance:
    """Where the server's sidecar takes TLS, and what a client asks for there."""

    port: int
    alpn: str
    server_name: str


class Pair(Protocol):
    """Client's sidecar and server's sidecar."""

    name: str
    # Everything about it that may move a figure, in words.
    settings: str

    def carries(self, kind: str) -> bool:
        """Whether there is anything to measure; a pair that would only repeat another one has nothing."""
        ...

    def server_side(self, group: Group, backend: Backend, kind: str) -> Running:
        """Starts the server's sidecar, and waits until it listens."""
        ...

    def client_side(self, group: Group, server: Running, kind: str) -> Running:
        """Starts the client's sidecar, without waiting for anything but its ports' numbers."""
        ...

    def ready(self, running: Running) -> bool:
        """Whether the client's sidecar says now that it can serve, certificate in hand."""
        ...

    def tls_entrance(self, server: Running) -> TlsEntrance:
        """Of the server's sidecar. Asked only of pairs that carry `HANDSHAKE`."""
        ...
