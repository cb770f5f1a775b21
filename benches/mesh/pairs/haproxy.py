"""HAProxy as both sidecars: terminating HTTP, or relaying plain TCP (the floor)."""

import subprocess
from pathlib import Path

from backend import Backend
from certificates import Certificates
from pairs.base import HANDSHAKE, Running, TlsEntrance
from processes import PROXY_CORE, Group, Process, free_port, until
from sockets import accepts, listens

CONFIGURATION = """
global
    nbthread 1
    maxconn 8192
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
    ssl-default-server-options ssl-min-ver TLSv1.3
    ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
defaults
    backlog 4096
    timeout connect 5s
    timeout client 1h
    timeout server 1h
{defaults}
frontend in
    bind 127.0.0.1:{port} {bind}
    default_backend out
backend out
    server next 127.0.0.1:{next} pool-purge-delay 1h {server}
"""

HTTP = """    mode http
    timeout http-keep-alive 1h
    option http-keep-alive
    http-reuse always"""
TCP = "    mode tcp"


class HAProxy:
    """`between`: what carries HTTP between the two, `h1` or `h2`; `None` relays plain TCP."""

    def __init__(self, program: Path, certificates: Certificates, between: str | None):
        version = subprocess.run([program, "-v"], capture_output=True, text=True).stdout.split()[2]
        self.program, self.certificates, self.between = program, certificates, between
        self.name = f"haproxy-{between}" if between else "tcp-relay"
        carried = (
            f"{'HTTP/2' if between == 'h2' else 'HTTP/1'} between over TLS 1.3 (AES-128-GCM), chain "
            "verified both ways but not the SPIFFE ID, sessions resumed by tickets, http-reuse always"
            if between
            else "plain TCP on both hops, nothing parsed or encrypted: the floor"
        )
        self.settings = f"HAProxy {version}, nbthread 1, no log, default buffers and windows; {carried}"

    def carries(self, kind: str) -> bool:
        if kind == HANDSHAKE:
            return self.between is not None
        return kind != "tcp" or self.between != "h2"

    def server_side(self, group: Group, backend: Backend, kind: str) -> Running:
        c, port = self.certificates, free_port()
        bind = ""
        if self.between:
            bind = f"ssl crt {c.both('backend')} ca-file {c.root} verify required {self.alpn(kind)}"
        behind = backend.http2 if kind == "http2" else backend.http1
        server = "proto h2" if kind == "http2" and self.between else ""
        return Running(port, [self.start(group, "backend", kind, port, behind, bind, server)])

    def client_side(self, group: Group, server: Running, kind: str) -> Running:
        c, port = self.certificates, free_port()
        options = ""
        if self.between:
            options = f"ssl crt {c.both('client')} ca-file {c.root} verify required {self.alpn(kind)}"
        bind = "proto h2" if kind == "http2" and self.between else ""
        process = self.start(group, "client", kind, port, server.entrance, bind, options)
        return Running(port, [process, *server.processes])

    def ready(self, running: Running) -> bool:
        # It has read its certificate before it listens.
        return accepts(running.entrance)

    def tls_entrance(self, server: Running) -> TlsEntrance:
        return TlsEntrance(server.entrance, "h2" if self.between == "h2" else "http/1.1", "backend.bench")

    def alpn(self, kind: str) -> str:
        if kind == "tcp":
            return ""
        return "alpn h2" if self.between == "h2" else "alpn http/1.1"

    def start(self, group: Group, who: str, kind: str, port: int, next: int, bind: str, server: str) -> Process:
        name = f"{self.name}-{who}"
        defaults = HTTP if self.between and kind != "tcp" else TCP
        text = CONFIGURATION.format(defaults=defaults, port=port, next=next, bind=bind, server=server)
        configuration = group.folder / f"{name}.cfg"
        configuration.write_text(text)
        process = group.start(name, [self.program, "-db", "-q", "-f", configuration], PROXY_CORE)
        if who == "backend":
            until(f"{name} listens", lambda: listens(port), [process])
        return process
