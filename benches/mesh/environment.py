"""What a run is told by variables of one prefix in the environment. Faults are gathered, so that all are reported at once."""

import os
import shutil
import sys
from pathlib import Path


class Environment:
    def __init__(self, prefix: str, names: dict[str, str]):
        """`names` with what each is for."""
        self.names = names
        self.faults = [f"{name} means nothing" for name in os.environ if name.startswith(prefix) and name not in names]

    def number(self, name: str, default: float, least: float) -> float:
        text = self._text(name)
        try:
            value = float(text) if text else default
        except ValueError:
            value = least - 1
        # What is no number is not less than anything, either.
        if not value >= least:
            self.faults.append(f"{name} must be a number from {least:g}, is {text!r}")
        return value

    def whole(self, name: str, default: int, least: int) -> int:
        value = float(self.number(name, default, least))
        if not value.is_integer():
            self.faults.append(f"{name} must be a whole number, is {self._text(name)!r}")
            return least
        return int(value)

    def chosen(self, name: str, known: list[str]) -> list[str]:
        names = [word for word in self._text(name).split(",") if word]
        self.faults += [f"{name}: there is no {word!r}, only {', '.join(known)}" for word in names if word not in known]
        return [word for word in known if word in names] or known

    def folder(self, name: str, default: Path) -> Path:
        return Path(self._text(name) or default)

    def program(self, path: Path | str) -> Path:
        found = shutil.which(str(path), path=os.environ.get("PATH", "") + ":/usr/sbin")
        if not found:
            self.faults.append(f"{path} is missing: `make` installs or builds it before it measures")
        return Path(found or path)

    def check(self):
        """Ends the program where anything is wrong."""
        if self.faults:
            known = [f"{name}: {what}" for name, what in self.names.items()]
            print("\n".join([*self.faults, "", "There are:", *known]), file=sys.stderr)
            sys.exit(78)

    @staticmethod
    def _text(name: str) -> str:
        return os.environ.get(name, "")
