"""Who listens, from the kernel's own list: asking this way costs the listener nothing."""

from pathlib import Path

LISTENING = "0A"


def listens(port: int) -> bool:
    """Whether anybody listens on this port of an IPv4 address."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state == LISTENING and int(local.rpartition(":")[2], 16) == port:
            return True
    return False
