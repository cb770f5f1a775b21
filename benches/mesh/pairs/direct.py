"""No sidecars at all: what everything else is measured against."""

from backend import Backend
from pairs.base import Running, TlsEntrance
from processes import Group


class Direct:
    name = "direct"
    settings = "the load goes straight to the backend"

    def carries(self, kind: str) -> bool:
        return kind in ("http1", "http2")

    def server_side(self, group: Group, backend: Backend, kind: str) -> Running:
        return Running(backend.http2 if kind == "http2" else backend.http1)

    def client_side(self, group: Group, server: Running, kind: str) -> Running:
        return server

    def ready(self, running: Running) -> bool:
        return True

    def tls_entrance(self, server: Running) -> TlsEntrance:
        raise NotImplementedError("nobody takes TLS here")
