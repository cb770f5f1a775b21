"""Ways to look at a pair of sidecars, and the pair that is looked at."""

import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from pairs.base import Running
from pairs.pillion import ControlPlane, Pillion
from processes import Group

# Prometheus asks every 15 s by default; this is dearer.
SCRAPE_EVERY = 1.0


@dataclass(frozen=True)
class Look:
    name: str
    # Whether time is split by segment, the access log is written (all errors, 1 % of the rest), figures are scraped.
    split: bool
    log: bool
    scrape: bool


# The first is what the others are beside; the last is all of it. Nobody taps: that is what an idle tap costs in each of them.
LOOKS = [
    Look("off", False, False, False),
    Look("hops", True, False, False),
    Look("log", False, True, False),
    Look("metrics", False, False, True),
    Look("all", True, True, True),
]


class Looked(Pillion):
    def __init__(self, look: Look, program: Path, control_plane: ControlPlane):
        flags = ["--split-latency", str(look.split).lower(), "--access-log", "json" if look.log else "off"]
        super().__init__(look.name, program, control_plane, flags)
        self.look = look
        scraped = f"; /metrics of both asked for every {SCRAPE_EVERY:g} s" if look.scrape else ""
        self.settings = " ".join(flags) + scraped

    def client_side(self, group: Group, server: Running, kind: str) -> Running:
        running = super().client_side(group, server, kind)
        if self.look.scrape:
            over = threading.Event()
            ports = [running.admin, server.admin]
            scraper = threading.Thread(target=scrape, args=(ports, over), daemon=True)
            scraper.start()
            group.callback(scraper.join)
            group.callback(over.set)
        return running


def scrape(ports: list[int], over: threading.Event) -> None:
    while not over.wait(SCRAPE_EVERY):
        for port in ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                answer.read()
