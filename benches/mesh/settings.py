"""What a run is made of, from the environment: `BENCH_*`."""

from dataclasses import dataclass
from pathlib import Path

from environment import Environment

NAMES = {
    "BENCH_ROUNDS": "how often everything is measured; medians are taken over rounds",
    "BENCH_SECONDS": "how long each measure takes",
    "BENCH_SETTLE": "seconds of quiet after a burst, before memory is looked at again",
    "BENCH_PAIRS": "only these, comma-separated",
    "BENCH_SCENARIOS": "only these, comma-separated; also `memory`, `start` and `syscalls`",
}


@dataclass(frozen=True)
class Programs:
    """What is measured, and what it is measured with."""

    proxy: Path
    # The same with its symbols, for its size.
    proxy_built: Path
    control_plane: Path
    load: Path
    envoy: Path
    haproxy: Path
    nginx: Path
    h2load: Path
    strace: Path


@dataclass(frozen=True)
class Settings:
    rounds: int
    seconds: float
    settle: float
    pairs: list[str]
    scenarios: list[str]
    output: Path
    programs: Programs


def read(target: Path, host: str, pairs: list[str], scenarios: list[str]) -> Settings:
    """`host` is what the programs that are shipped were built for. Ends the program where anything is wrong."""
    told = Environment("BENCH_", NAMES)
    settings = Settings(
        rounds=told.whole("BENCH_ROUNDS", 3, 1),
        seconds=told.number("BENCH_SECONDS", 10, 0.1),
        settle=told.number("BENCH_SETTLE", 30, 0),
        pairs=told.chosen("BENCH_PAIRS", pairs),
        scenarios=told.chosen("BENCH_SCENARIOS", scenarios),
        output=target / "bench",
        programs=Programs(
            proxy=told.program(target / "dist/pillion-proxy"),
            proxy_built=told.program(target / host / "release/pillion-proxy"),
            control_plane=told.program(target / "dist/pillion"),
            load=told.program(target / "release/pillion-load"),
            envoy=told.program(target / "tools/bin/envoy"),
            haproxy=told.program("haproxy"),
            nginx=told.program("nginx"),
            h2load=told.program("h2load"),
            strace=told.program("strace"),
        ),
    )
    told.check()
    return settings
