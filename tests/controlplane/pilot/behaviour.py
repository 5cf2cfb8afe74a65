"""Cases of virtual services as tables: what is configured, and which requests get which answers.

In `cases/*.yaml`, a case has the `http` rules of a virtual service for the host `CASE.test`, other `resources`, and
`requests`. What a request may say: `method`, `path`, `host`, `headers`; what is expected of it: `from` (who answers: the
service, with its namespace if it is not `shop`, `/SUBSET`, `:PORT` if it is not 80), `status`, `body`, `sees` (what arrived:
`path`, `host`, `headers`), `gets` (headers of the answer; null: absent), `also` and `never` (who gets, or does not get, a
copy), `takes` and `within` (seconds), or `share` (who answers how many percent of 400 requests).
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.controlplane.pilot.answering import Answering
from tests.running import until

CASES = Path(__file__).parent / "cases"
SERVICES = """
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {name}}}
  ports: {ports}
"""
_PORTS = {"two-ports": [80, 8080], "odd-port": [9080]}
_SHARES = 400


class Case(NamedTuple):
    """One case, and the YAML of its resources."""

    name: str
    resources: str
    requests: tuple[Mapping[str, Any], ...]


def cases(topic: str) -> Iterator[Case]:
    """The cases of one file."""
    for entry in yaml.safe_load((CASES / f"{topic}.yaml").read_text()):
        name = entry["case"]
        virtual_service = {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"hosts": [f"{name}.test"], "http": entry["http"]},
        }
        resources = f"{yaml.safe_dump(virtual_service)}---\n{entry.get('resources', '')}"
        yield Case(name, resources, tuple(entry["requests"]))


def services() -> str:
    """The services that cases send requests to."""
    wanted = [(name, "shop") for name in ("a", "b", "c", "d", "hashed", "silent", *_PORTS)] + [("far", "away")]
    made = []
    for name, namespace in wanted:
        ports = [{"name": f"http-{port}", "port": port} for port in _PORTS.get(name, [80])]
        made.append(SERVICES.format(name=name, namespace=namespace, ports=json.dumps(ports)))
    return "---".join(made)


def short(cluster: str) -> str:
    """A cluster as the cases write it."""
    if not cluster.startswith("outbound|"):
        return cluster
    _, port, subset, host = cluster.split("|")
    name = host.removesuffix(".svc.cluster.local").removesuffix(".shop")
    return name + (f"/{subset}" if subset else "") + (f":{port}" if port != "80" else "")


def check(port: int, host: str, request: Mapping[str, Any], servers: Answering) -> None:
    """Send a request to a proxy's port; AssertionError if what comes of it is not as expected."""
    if "share" in request:
        _check_share(port, host, request)
        return
    started = time.monotonic()
    status, headers, body = send(port, host, request)
    took = time.monotonic() - started
    expected = request.get("status", 200)
    assert status == expected, f"status {status}, not {expected}: {body[:200]!r}"
    if "from" in request:
        seen = json.loads(body)
        assert short(seen["from"]) == request["from"]
        _check_seen(seen, request.get("sees", {}))
    if "body" in request:
        assert body.decode() == request["body"]
    for name, value in request.get("gets", {}).items():
        if isinstance(value, Mapping):
            assert re.fullmatch(value["regex"], headers.get(name, "")), (name, headers.get(name))
        else:
            assert headers.get(name) == value, (name, headers)
    assert request.get("takes", 0.0) <= took <= request.get("within", 30.0)
    if "also" in request:
        until(lambda: request["also"] in _reached(servers, request), f"a copy reaches {request['also']}")
        assert request.get("never") not in _reached(servers, request)


def send(port: int, host: str, request: Mapping[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (by lower-cased name) and body of one request's answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        headers = {"host": request.get("host", host), **request.get("headers", {})}
        connection.request(request.get("method", "GET"), request.get("path", "/"), headers=headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def _check_seen(seen: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    if "path" in expected:
        assert seen["path"] == expected["path"]
    if "host" in expected:
        assert seen["headers"]["host"] == expected["host"]
    for name, value in expected.get("headers", {}).items():
        assert seen["headers"].get(name) == value, (name, seen["headers"])


def _check_share(port: int, host: str, request: Mapping[str, Any]) -> None:
    found: Counter[str] = Counter()
    for _ in range(_SHARES):
        status, _, body = send(port, host, request)
        found[short(json.loads(body)["from"]) if status == 200 else str(status)] += 1
    assert found.keys() == request["share"].keys(), found
    for name, percent in request["share"].items():
        assert abs(found[name] / _SHARES * 100 - percent) < 13, found


def _reached(servers: Answering, request: Mapping[str, Any]) -> set[str]:
    return {short(str(each["from"])) for each in servers.requests if each["path"] == request["path"]}
