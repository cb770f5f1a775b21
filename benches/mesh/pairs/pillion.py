"""pillion as it is: a control plane for certificates and endpoints, and two sidecars with everything on."""

import json
import subprocess
from pathlib import Path

from backend import Backend
from certificates import TRUST_DOMAIN, Certificates
from pairs.base import KINDS, Running, TlsEntrance
from processes import LOAD_CORE, PROXY_CORE, Group, Process, answers, until

SERVICE = """
apiVersion: v1
kind: Service
metadata: {{ name: {service}, namespace: bench }}
spec:
  selector: {{ app: {service} }}
  ports:
    - {{ name: http1, port: 80, targetPort: 8080, appProtocol: http }}
    - {{ name: http2, port: 81, targetPort: 8081, appProtocol: kubernetes.io/h2c }}
    - {{ name: tcp, port: 82, targetPort: 8082, appProtocol: tcp }}
"""
PORTS = dict(zip(KINDS, (80, 81, 82)))


class ControlPlane:
    """One for a whole run: the sidecars are what is measured, and start afresh."""

    def __init__(self, group: Group, program: Path, certificates: Certificates):
        self.program = program
        data = group.folder / "control-plane"
        arguments = ["server", "--data-dir", data, "--trust-domain", TRUST_DOMAIN]
        arguments += ["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
        arguments += ["--ca-cert", certificates.root, "--ca-key", certificates.root_key]
        process = group.start("control-plane", [program, *arguments], LOAD_CORE)
        addresses = written(data / "server.json", process)
        self.grpc = addresses["grpcAddress"]
        self.flags = ["--server", f"http://{addresses['httpAddress']}", "--token-file", addresses["adminTokenFile"]]
        self.services = 0

    def service(self) -> str:
        """A new service's name. Each measure has one of its own, so that nothing of an earlier one is in the way."""
        self.services += 1
        name = f"backend-{self.services}"
        self.run("apply", "-f", "-", text=SERVICE.format(service=name))
        return name

    def join_token(self, service_account: str) -> str:
        arguments = ["--namespace", "bench", "--service-account", service_account]
        return self.run("token", "create", *arguments).split()[-1]

    def run(self, *arguments: str, text: str = "") -> str:
        command = [self.program, *arguments, *self.flags]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"pillion {arguments[0]}: {done.stderr}")
        return done.stdout


class Pillion:
    def __init__(self, name: str, program: Path, control_plane: ControlPlane, flags: list[str] | None = None):
        self.name, self.program, self.control_plane = name, program, control_plane
        # Of both sidecars, beside the defaults.
        self.flags = flags or []
        self.settings = (
            "the static program that is shipped, all defaults: one worker, metrics, balancing, breaker, SPIFFE IDs "
            "verified both ways, sessions resumed by tickets, reports to the control plane every second; explicit "
            "listener at the client's side"
        )

    def carries(self, kind: str) -> bool:
        return True

    def server_side(self, group: Group, backend: Backend, kind: str) -> Running:
        service = self.control_plane.service()
        applications = zip((8080, 8081, 8082), (backend.http1, backend.http2, backend.http1))
        ports = ",".join(f"{port}=127.0.0.1:{real}" for port, real in applications)
        process, file = self.start(group, service, ["--labels", f"app={service}", "--ports", ports])
        running = PillionRunning([process], written(file, process), service, self.control_plane.join_token("client"))
        until(f"{service} has its certificate", lambda: self.ready(running), [process])
        return running

    def client_side(self, group: Group, server: "PillionRunning", kind: str) -> Running:
        target = f"{server.service}.bench:{PORTS[kind]}"
        flags = ["--listeners", f"127.0.0.1:0={target}", "--health", "none"]
        process, file = self.start(group, f"{server.service}-client", flags, server.token)
        addresses = written(file, process)
        entrance, admin = port_of(addresses["listeners"][target]), port_of(addresses["admin"])
        return Running(entrance, [process, *server.processes], admin)

    def ready(self, running: Running) -> bool:
        # The operators' port says that it is ready as soon as it runs; the log says when the certificate has come.
        return b"certified" in running.processes[0].log.read_bytes() and answers(running.admin, "/ready")

    def tls_entrance(self, server: "PillionRunning") -> TlsEntrance:
        # Callers name the application's port.
        return TlsEntrance(server.entrance, "pillion/h2", f"8080.{server.service}.bench.mesh")

    def start(self, group: Group, who: str, flags: list[str], token: str | None = None) -> tuple[Process, Path]:
        file = group.folder / f"{who}.json"
        common = {
            "--workload": who,
            "--control-plane": self.control_plane.grpc,
            "--join-token": token or self.control_plane.join_token(who),
            "--addresses-file": str(file),
            "--inbound-listen": "127.0.0.1:0",
            "--outbound-listen": "127.0.0.1:0",
            "--admin-listen": "127.0.0.1:0",
        }
        arguments = [self.program, *flags, *self.flags, *(word for pair in common.items() for word in pair)]
        return group.start(who, arguments, PROXY_CORE), file


class PillionRunning(Running):
    """The server's side, with what the client's side needs to know of it."""

    def __init__(self, processes: list[Process], addresses: dict, service: str, token: str):
        super().__init__(port_of(addresses["inbound"]), processes, port_of(addresses["admin"]))
        self.service, self.token = service, token


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def written(file: Path, process: Process) -> dict:
    """What a process writes into a file once it listens."""

    def read():
        try:
            return json.loads(file.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    return until(f"{process.name} listens", read, [process], interval=0.0005)
