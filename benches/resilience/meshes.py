"""What is compared: each mesh, started in front of the same replicas, has an entrance for the caller."""

import json
import re
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from pairs.pillion import ControlPlane, port_of, written
from processes import PROXY_CORE, Group, Process, answers, free_port, until

TYPE = "type.googleapis.com/envoy.extensions"
HOST = "app.bench"

DOCUMENTS = """
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: bench }}
spec:
  selector: {{ app: {name} }}
  ports: [{{ name: http, port: 80, targetPort: 8080, appProtocol: http }}]
---
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: {{ name: {name}, namespace: bench }}
spec:
  targetRefs: [{{ group: "", kind: Service, name: {name} }}]
  retry: {{ attempts: 2 }}
"""


@dataclass
class Running:
    """Where the caller connects, and what it calls."""

    entrance: int
    host: str


class Pillion:
    """A sidecar for each replica and one for the caller, with mutual TLS between."""

    name = "pillion"
    settings = "two retries, and all defaults; a sidecar in front of every replica, mutual TLS"

    def __init__(self, proxy: Path, control_plane: ControlPlane):
        self.proxy, self.control_plane = proxy, control_plane

    def start(self, group: Group, replicas: list[int]) -> Running:
        # A service of its own for each measure, so that nothing of an earlier one is in the way.
        self.control_plane.services += 1
        name = f"app-{self.control_plane.services}"
        self.control_plane.run("apply", "-f", "-", text=DOCUMENTS.format(name=name))
        token = self.control_plane.join_token(name)
        started = []
        for index, port in enumerate(replicas):
            flags = ["--labels", f"app={name}", "--ports", f"8080=127.0.0.1:{port}"]
            started.append(self.sidecar(group, f"{name}-{index}", token, flags))
        target = f"{name}.bench:80"
        flags = ["--listeners", f"127.0.0.1:0={target}", "--health", "none"]
        caller = self.sidecar(group, f"{name}-caller", self.control_plane.join_token("client"), flags)
        for process, file in [*started, caller]:
            written(file, process)
            certified = lambda log=process.log: b"certified" in log.read_bytes()
            until(f"{process.name} has its certificate", certified, [process])
        addresses = written(caller[1], caller[0])
        admin = port_of(addresses["admin"])
        entrance = port_of(addresses["listeners"][target])
        # It asks for a service when that is first called.
        until("the service answers", lambda: answers(entrance, "/first"), [caller[0]])
        all_ready = lambda: ready(admin, f"{name}.bench") == len(replicas)
        until("the caller's sidecar knows all replicas", all_ready, [caller[0]])
        return Running(entrance, HOST)

    def sidecar(self, group: Group, who: str, token: str, flags: list[str]) -> tuple[Process, Path]:
        file = group.folder / f"{who}.json"
        common = {
            "--workload": who,
            "--control-plane": self.control_plane.grpc,
            "--join-token": token,
            "--addresses-file": str(file),
            "--inbound-listen": "127.0.0.1:0",
            "--outbound-listen": "127.0.0.1:0",
            "--admin-listen": "127.0.0.1:0",
        }
        arguments = [self.proxy, *flags, *(word for pair in common.items() for word in pair)]
        return group.start(who, arguments, PROXY_CORE), file


def ready(admin: int, service: str) -> int:
    """Endpoints of a service that a sidecar may call."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/endpoints", timeout=2) as answer:
        return sum(endpoint["service"] == service and endpoint["ready"] for endpoint in json.load(answer))


class Envoy:
    """One for the caller, straight to the replicas."""

    def __init__(self, program: Path, policy: dict):
        told = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
        version = re.search(r"/(\d+\.\d+\.\d+)/", told)[1]
        self.program, self.policy = program, policy
        self.name = policy["name"]
        self.settings = f"Envoy {version}, {policy['settings']}; no sidecar at the replicas, plain HTTP/1"

    def start(self, group: Group, replicas: list[int]) -> Running:
        port, admin = free_port(), free_port()
        configuration = group.folder / f"{self.name}.json"
        configuration.write_text(json.dumps(self.bootstrap(port, admin, replicas), indent=1))
        arguments = [self.program, "-c", configuration, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        process = group.start(self.name, arguments, PROXY_CORE)
        until(f"{self.name} is ready", lambda: answers(admin, "/ready"), [process])
        return Running(port, HOST)

    def bootstrap(self, port: int, admin: int, replicas: list[int]) -> dict:
        route = {"cluster": "app", "timeout": "0s", **self.policy["route"]}
        hosts = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
        router = {"@type": f"{TYPE}.filters.http.router.v3.Router"}
        manager = {
            "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "h",
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
            "route_config": {"virtual_hosts": [hosts]},
        }
        filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
        endpoints = [{"endpoint": {"address": address(replica)}} for replica in replicas]
        cluster = {
            "name": "app",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": endpoints}]},
            **self.policy["cluster"],
        }
        listener = {"name": "in", "address": address(port), "filter_chains": [{"filters": filters}]}
        return {
            "static_resources": {"listeners": [listener], "clusters": [cluster]},
            "admin": {"address": address(admin)},
        }


def address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


# As its documentation recommends for transient failures (faq/load_balancing/transient_failures), with least request, and with the
# retry budget, whose numbers are its defaults, instead of a fixed number of retries.
RECOMMENDED = {
    "name": "envoy",
    "settings": (
        "least request, outlier detection (5 consecutive, 30 s, at most half), one retry on another host, retry budget 20 %: "
        "what its documentation recommends for transient failures"
    ),
    "cluster": {
        "lb_policy": "LEAST_REQUEST",
        "outlier_detection": {
            "consecutive_5xx": 5,
            "base_ejection_time": "30s",
            "max_ejection_percent": 50,
            "consecutive_gateway_failure": 5,
        },
        "circuit_breakers": {
            "thresholds": [{"retry_budget": {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 3}}]
        },
    },
    "route": {
        "retry_policy": {
            "retry_on": "cancelled,connect-failure,gateway-error,refused-stream,reset,resource-exhausted,unavailable",
            "num_retries": 1,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type": f"{TYPE}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                }
            ],
            "host_selection_retry_max_attempts": 5,
        }
    },
}
ROUND_ROBIN = {
    "name": "round robin",
    "settings": "round robin and nothing else: no retries, no outlier detection",
    "cluster": {"lb_policy": "ROUND_ROBIN"},
    "route": {},
}
