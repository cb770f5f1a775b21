"""The application behind the server's sidecar: nginx, and its own count of what it was asked."""

import re
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from processes import LOAD_CORE, Group, Process, answers, free_port, until

# About a hundred bytes, as small API answers are; newline-free, so that it fits a configuration file.
SMALL = b'{"status":"ok","service":"backend","items":[1,2,3,4,5],"note":"a small answer of one hundred bytes"}'

CONFIGURATION = """
load_module {modules}/ngx_http_echo_module.so;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    # Without these nginx ends connections, also HTTP/2's, after 1,000 requests.
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    http2_max_concurrent_streams 1024;
    client_body_buffer_size 64k;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    open_file_cache max=100;
    sendfile on;
    tcp_nodelay on;
    default_type application/json;
    server {{
        listen 127.0.0.1:{http1} backlog=4096;
        root {folder}/files;
        location = /small {{ return 200 '{small}'; }}
    }}
    server {{
        listen 127.0.0.1:{http2} http2 backlog=4096;
        # `return` would answer before the request's body was read, and reset the stream.
        location / {{ echo_read_request_body; echo -n '{small}'; }}
    }}
    server {{
        listen 127.0.0.1:{status};
        location / {{ stub_status; }}
    }}
}}
"""


@dataclass
class Backend:
    """A running nginx."""

    process: Process
    http1: int
    http2: int
    status: int
    files: Path
    # How often it was asked for its count.
    asked: int = 0

    def requests(self) -> int:
        """How many requests it has had, without the questions about that. Only differences mean anything."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.status}/", timeout=10) as answer:
            counts = re.search(r"\n\s*\d+ \d+ (\d+)", answer.read().decode())
        self.asked += 1
        return int(counts[1]) - self.asked


def start(group: Group, nginx: Path) -> Backend:
    files = group.folder / "files"
    files.mkdir()
    (files / "small").write_bytes(SMALL)
    pattern = bytes(range(1, 252))
    for name, size in (("64k", 64 << 10), ("10m", 10 << 20)):
        (files / name).write_bytes((pattern * (size // len(pattern) + 1))[:size])
    (files / "1k").write_bytes((pattern * 5)[:1024])
    ports = {"http1": free_port(), "http2": free_port(), "status": free_port()}
    configuration = group.folder / "nginx.conf"
    text = CONFIGURATION.format(folder=group.folder, small=SMALL.decode(), modules="/usr/lib/nginx/modules", **ports)
    configuration.write_text(text)
    process = group.start("nginx", [nginx, "-p", group.folder, "-c", configuration], LOAD_CORE)
    until("nginx answers", lambda: answers(ports["http1"], expected=SMALL), [process])
    return Backend(process, files=files, **ports)
