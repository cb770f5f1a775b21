"""Certificates for the peers, of the same kind as pillion's own: P-256 leaves with a SPIFFE ID, under one root."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

TRUST_DOMAIN = "bench.local"


@dataclass
class Certificates:
    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root.crt"

    @property
    def root_key(self) -> Path:
        """What pillion's control plane signs with, so that all pairs believe the same root."""
        return self.folder / "root.key"

    def chain(self, who: str) -> Path:
        return self.folder / f"{who}.crt"

    def key(self, who: str) -> Path:
        return self.folder / f"{who}.key"

    def both(self, who: str) -> Path:
        """Certificate and key in one file, as HAProxy reads them."""
        return self.folder / f"{who}.pem"


def spiffe_id(who: str) -> str:
    return f"spiffe://{TRUST_DOMAIN}/ns/bench/sa/{who}"


def make(folder: Path) -> Certificates:
    folder.mkdir()
    made = Certificates(folder)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", made.root_key, "-out", made.root, "-days", "2", "-subj", "/O=bench")
    for who in ("client", "backend"):
        request, extensions = folder / f"{who}.csr", folder / f"{who}.ext"
        extensions.write_text(
            f"subjectAltName=critical,URI:{spiffe_id(who)}\nkeyUsage=critical,digitalSignature\n"
            "extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=critical,CA:FALSE\n"
        )
        openssl("req", *key, "-keyout", made.key(who), "-out", request, "-subj", "/")
        openssl(
            "x509", "-req", "-in", request, "-CA", made.root, "-CAkey", made.root_key, "-CAcreateserial",
            "-days", "2", "-extfile", extensions, "-out", made.chain(who),
        )  # fmt: skip
        made.both(who).write_bytes(made.chain(who).read_bytes() + made.key(who).read_bytes())
    return made


def openssl(*arguments) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
