"""What a run is made of, from the environment: `BENCH_*`. Every fault is reported at once."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

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
    """`host` is what the programs that are shipped were built for. Raises `ValueError` with all that is wrong."""
    faults: list[str] = []

    def number(name: str, default: float, least: float) -> float:
        text = os.environ.get(name, "")
        try:
            value = float(text) if text else default
        except ValueError:
            value = least - 1
        if value < least:
            faults.append(f"{name} must be a number from {least:g}, is {text!r}")
        return value

    def chosen(name: str, known: list[str]) -> list[str]:
        names = [word for word in os.environ.get(name, "").split(",") if word]
        faults.extend(f"{name}: there is no {word!r}, only {', '.join(known)}" for word in names if word not in known)
        return [word for word in known if word in names] or known

    def program(path: Path | str) -> Path:
        found = shutil.which(str(path), path=os.environ.get("PATH", "") + ":/usr/sbin")
        if not found:
            faults.append(f"{path} is missing: `make bench` installs or builds it")
        return Path(found or path)

    unknown = [name for name in os.environ if name.startswith("BENCH_") and name not in NAMES]
    faults.extend(f"{name} means nothing; there are {', '.join(NAMES)}" for name in unknown)
    settings = Settings(
        rounds=int(number("BENCH_ROUNDS", 3, 1)),
        seconds=number("BENCH_SECONDS", 10, 0.1),
        settle=number("BENCH_SETTLE", 30, 0),
        pairs=chosen("BENCH_PAIRS", pairs),
        scenarios=chosen("BENCH_SCENARIOS", scenarios),
        output=target / "bench",
        programs=Programs(
            proxy=program(target / "dist/pillion-proxy"),
            proxy_built=program(target / host / "release/pillion-proxy"),
            control_plane=program(target / "dist/pillion"),
            load=program(target / "release/pillion-load"),
            envoy=program(target / "tools/bin/envoy"),
            haproxy=program("haproxy"),
            nginx=program("nginx"),
            h2load=program("h2load"),
            strace=program("strace"),
        ),
    )
    if faults:
        raise ValueError("\n".join(faults))
    return settings
