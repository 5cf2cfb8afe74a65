"""A request's way from one service to another, asked of the sidecar's own code: first the client's side, then the server's."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Protocol

import click
from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

_OUTBOUND: Final = re.compile(r"outbound\|(\d+)\|([^|]*)\|(.+)")
_POLICY: Final = re.compile(r"ns\[([^\]]*)\]-policy\[([^\]]*)\]-rule\[(\d+)\]")
_PATIENCE: Final = 60.0
_ANYWHERE: Final = ("0.0.0.0", "::", "")
_KINDS: Final = {"virtual-service": "VirtualService", "destination-rule": "DestinationRule"}
_NOT_SENT: Final = ("x-request-id", "x-envoy-", "x-forwarded-client-cert", "content-length")


class Mesh(Protocol):
    """Where the configurations of proxies come from; see ``proxy_configuration.configuration_of``."""

    def named(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """Those of a workload or of a service's workloads."""
        ...

    def at(self, address: str) -> list[dict[str, Any]]:
        """Those of the proxies at an IP address."""
        ...


@dataclass(frozen=True, slots=True)
class Leg:
    """What one proxy says. ``steps`` are those of `python -m sidecar explain --format json`."""

    title: str
    steps: Sequence[dict[str, Any]] = ()
    causes: Sequence[str] = ()
    arrives: bool = False
    verdict: str = ""

    def origin(self, step: dict[str, Any]) -> str:
        """The resource and rule that a step comes from, as far as it can be told."""
        found = _POLICY.findall(step["text"]) or _POLICY.findall(" ".join(step["details"]))
        if step["stage"] in ("http filter", "network filter") and found:
            return ", ".join(
                dict.fromkeys(f"AuthorizationPolicy {namespace}/{name}, rule {rule}" for namespace, name, rule in found)
            )
        if "jwt_authn" in step["name"]:
            return ", ".join(cause for cause in self.causes if cause.startswith("RequestAuthentication "))
        if step["stage"] in ("filter chain", "transport socket"):
            return ", ".join(cause for cause in self.causes if cause.startswith("PeerAuthentication "))
        config = step["metadata"].get("istio", {}).get("config", "")
        if config:
            *_, namespace, kind, name = str(config).split("/")
            return f"{_KINDS.get(kind, kind)} {namespace}/{name}"
        return ""

    def as_json(self) -> dict[str, Any]:
        steps = [{**step, "resource": self.origin(step)} for step in self.steps]
        return {"title": self.title, "arrives": self.arrives, "verdict": self.verdict, "steps": steps}


class Journey:
    """One request. ``target`` is a service, with its namespace before it or none, or a full host name."""

    def __init__(
        self,
        mesh: Mesh,
        source: str | None,
        target: str,
        port: int | None,
        method: str,
        path: str,
        headers: Sequence[str],
    ) -> None:
        self.mesh = mesh
        self.source = source
        self.target = target
        self.port = port
        self.method = method
        self.path = path
        self.headers = list(headers)

    def legs(self) -> list[Leg]:
        """First the client's side, if it has one, then the server's. Raises click.ClickException."""
        if self.source is None:
            return [self._from_nobody()]
        namespace, slash, name = self.source.partition("/")
        if not slash or not name:
            raise click.BadParameter(f"{self.source!r} is not NAMESPACE/SERVICE", param_hint="--from")
        clients = self.mesh.named(namespace, name)
        if not clients:
            raise click.ClickException(f"no sidecar of {self.source} is known: is it connected, is its workload there?")
        client = clients[0]
        host, port = self._service(client, namespace)
        leg = self._outbound(client, host, port)
        if not leg.arrives:
            return [leg]
        return [leg, self._inbound(client, leg)]

    def _outbound(self, client: dict[str, Any], host: str, port: int) -> Leg:
        arguments = [*self._request(f"http://{host}:{port}{self.path}", self.headers)]
        if client["intercepts"]:
            arguments += ["--direction", "outbound", "--to", f"{_captured_address(client, host)}:{port}"]
        elif client["forwardProxy"]:
            arguments += ["--to", f"127.0.0.1:{client['forwardProxy']}"]
        steps = explained(client, self.method, arguments)
        title = f"{client['namespace']}/{client['name']} asks {host}:{port}: {self.method} {self.path}"
        return _leg(title, client, steps)

    def _inbound(self, client: dict[str, Any], outbound: Leg) -> Leg:
        endpoints = [
            one
            for step in outbound.steps
            if step["stage"] == "cluster"
            for one in step["facts"].get("endpoints", ())
            if one["healthy"]
        ]
        if not endpoints:
            return Leg("the endpoint is found by the sidecar", arrives=True, verdict=outbound.verdict)
        endpoint = endpoints[0]
        request = outbound.steps[-1]["facts"].get("request")
        address = endpoint["address"].rpartition(":")[0]
        servers = self.mesh.at(address.strip("[]"))
        listening = [one for one in servers if _listens(one, endpoint["address"])] or servers
        if not listening:
            how = "mutual TLS" if endpoint["tls"] else "plain text"
            title = f"no sidecar is known at {endpoint['address']}: it gets {how}, and decides by itself"
            return Leg(title, arrives=True, verdict=f"the request goes to {endpoint['address']}")
        server = listening[0]
        headers = self.headers if request is None else [one for one in request["headers"] if _goes_on(one)]
        authority, path = ("", self.path) if request is None else (request["authority"], request["path"])
        arguments = self._request(f"http://{authority or endpoint['address']}{path}", headers)
        arguments += ["--to", endpoint["address"], "--direction", "inbound", "--source", _source(client)]
        if endpoint["tls"] and endpoint.get("certificate") and client["identity"]:
            arguments += ["--peer", client["identity"], "--alpn", ",".join(endpoint["alpn"])]
            if endpoint["serverName"]:
                arguments += ["--sni", endpoint["serverName"]]
        steps = explained(server, self.method, arguments)
        who = client["identity"] if endpoint["tls"] else "somebody in plain text"
        others = f", one of {len(endpoints)}" if len(endpoints) > 1 else ""
        return _leg(
            f"{server['namespace']}/{server['name']} at {endpoint['address']}{others} is asked by {who}", server, steps
        )

    def _from_nobody(self) -> Leg:
        """Somebody without a sidecar asks the server's own address, in plain text."""
        namespace, slash, name = self.target.partition("/")
        if not slash:
            raise click.BadParameter("without --from, write NAMESPACE/SERVICE", param_hint="--to")
        servers = self.mesh.named(namespace, name)
        if not servers:
            raise click.ClickException(f"no sidecar of {self.target} is known")
        server = servers[0]
        port = self.port or _first_inbound_port(server)
        address = f"{server['addresses'][0]}:{port}"
        arguments = self._request(f"http://{name}.{namespace}:{port}{self.path}", self.headers)
        steps = explained(server, self.method, [*arguments, "--to", address, "--direction", "inbound"])
        return _leg(
            f"{server['namespace']}/{server['name']} at {address} is asked by somebody in plain text", server, steps
        )

    def _request(self, url: str, headers: Iterable[str]) -> list[str]:
        return [url, *(part for header in headers for part in ("-H", header))]

    def _service(self, client: dict[str, Any], namespace: str) -> tuple[str, int]:
        """The full host name and the port of what is meant, by the clusters that the client has."""
        prefix, slash, name = self.target.partition("/")
        wanted = f"{name}.{prefix}" if slash else self.target
        found: dict[str, list[int]] = {}
        for cluster in _bootstrap(client).static_resources.clusters:
            match = _OUTBOUND.fullmatch(cluster.name)
            if match:
                found.setdefault(match[3], []).append(int(match[1]))
        candidates = (wanted, f"{wanted}.svc.cluster.local", f"{wanted}.{namespace}.svc.cluster.local")
        host = next((one for one in candidates if one in found), None)
        host = host or next((one for one in found if one.startswith(f"{wanted}.")), None)
        if host is None:
            seen = ", ".join(sorted(found)) or "none"
            who = f"{client['namespace']}/{client['name']}"
            raise click.ClickException(f"{who} sees no service {self.target}; it sees {seen}")
        ports = found[host]
        if self.port is not None and self.port not in ports:
            raise click.BadParameter(f"{host} has {', '.join(map(str, sorted(set(ports))))}", param_hint="--port")
        return host, self.port or min(ports)


def explained(configuration: dict[str, Any], method: str, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The steps that the sidecar's own code tells of a request. Raises click.ClickException."""
    with tempfile.TemporaryDirectory(prefix="mizzen-explain-") as directory:
        file = Path(directory) / "bootstrap.pb"
        file.write_bytes(base64.b64decode(configuration["bootstrap"]))
        command = [
            sys.executable,
            "-m",
            "sidecar",
            "explain",
            "--config",
            str(file),
            "--format",
            "json",
            method,
            *arguments,
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            raise click.ClickException(f"the sidecar did not explain within {_PATIENCE:.0f} s") from None
    if done.returncode not in (0, 3):
        raise click.ClickException(f"{configuration['proxy']}: {done.stderr.strip()}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _leg(title: str, configuration: dict[str, Any], steps: list[dict[str, Any]]) -> Leg:
    listener = next((one["name"] for one in steps if one["stage"] == "listener" and one["outcome"] == "taken"), "")
    causes = configuration["causes"]["listeners"].get(listener, ())
    last = steps[-1]
    return Leg(title, steps, causes, last["outcome"] == "taken", last["text"])


def _bootstrap(configuration: dict[str, Any]) -> Any:
    return Bootstrap.FromString(base64.b64decode(configuration["bootstrap"]))


def _listens(configuration: dict[str, Any], address: str) -> bool:
    if configuration["intercepts"]:
        return True
    for listener in _bootstrap(configuration).static_resources.listeners:
        socket = listener.address.socket_address
        if f"{socket.address}:{socket.port_value}" == address:
            return True
    return False


def _first_inbound_port(configuration: dict[str, Any]) -> int:
    for listener in _bootstrap(configuration).static_resources.listeners:
        if listener.traffic_direction == 1:  # INBOUND
            if not configuration["intercepts"]:
                return int(listener.address.socket_address.port_value)
            ports = [chain.filter_chain_match.destination_port.value for chain in listener.filter_chains]
            served = [port for port in ports if port and port != listener.address.socket_address.port_value]
            if served:
                return int(served[0])
    raise click.ClickException(f"{configuration['proxy']} listens for nobody: has its workload a service?")


def _captured_address(configuration: dict[str, Any], host: str) -> str:
    """An address that programs would connect to for a host, where connections are captured: that of the host's own listener, or
    one that its routes know it by; any other is told from its neighbours by name alone.
    """
    name = host.encode()
    for listener in _bootstrap(configuration).static_resources.listeners:
        address = listener.address.socket_address.address
        own = address not in _ANYWHERE and not address.startswith("127.")
        if own and any(name in one.typed_config.value for chain in listener.filter_chains for one in chain.filters):
            return str(address)
        for chain in listener.filter_chains:
            for one in chain.filters:
                if one.typed_config.Is(HttpConnectionManager.DESCRIPTOR):
                    manager: Any = HttpConnectionManager.FromString(one.typed_config.value)
                    found = _address_among(manager.route_config, host)
                    if found:
                        return found
    return "240.240.0.1"


def _address_among(routes: Any, host: str) -> str:
    for virtual_host in routes.virtual_hosts:
        if host in virtual_host.domains:
            for domain in virtual_host.domains:
                with contextlib.suppress(ValueError):
                    return str(ip_address(domain))
    return ""


def _source(configuration: dict[str, Any]) -> str:
    return configuration["addresses"][0] if configuration["addresses"] else "127.0.0.1"


def _goes_on(header: str) -> bool:
    return not header.lower().startswith(_NOT_SENT)
