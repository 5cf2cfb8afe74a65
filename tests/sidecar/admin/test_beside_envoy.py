"""The pages beside those of real Envoy on the same bootstrap."""

from __future__ import annotations

import json
import random
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.sidecar.admin.bootstraps import VARIED
from tests.sidecar.admin.interface import Answer, Interface, ask, serving

_VOLATILE = re.compile(r'"(last_updated|uptime_\w+)": "[^"]*"')


class Pair:
    """Envoy and ours. Each method gives both answers to one request, Envoy's first."""

    def __init__(self, envoy_port: int, ours: Interface) -> None:
        self.envoy_port = envoy_port
        self.ours = ours

    def ask(self, target: str, method: str = "GET") -> tuple[Answer, Answer]:
        """The same request to both."""
        return ask(self.envoy_port, target, method), self.ours.ask(target, method)

    def json(self, target: str) -> tuple[Any, Any]:
        """Both answers, parsed."""
        envoy, ours = self.ask(target)
        assert envoy.status == ours.status == 200, (envoy, ours)
        return json.loads(envoy.body), json.loads(ours.body)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both, running."""
    try:
        binary = envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(f"needs real Envoy: {error}")
    directory = tmp_path_factory.mktemp("envoy")
    config, address, log = directory / "envoy.json", directory / "admin", directory / "log"
    config.write_text(json.dumps(VARIED))
    arguments = [binary, "-c", str(config), "--concurrency", "1", "--admin-address-path", str(address)]
    arguments += ["--log-level", "critical", "--log-path", str(log), "--base-id", str(random.randrange(1, 1 << 28))]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _port(process, address, log)
        with serving(VARIED) as ours:
            yield Pair(port, ours)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _port(process: subprocess.Popen[bytes], address: Path, log: Path) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-2000:]
        if address.exists() and (text := address.read_text()):
            port = int(text.rpartition(":")[2])
            if ask(port, "/ready").status == 200:
                return port
        time.sleep(0.02)
    raise AssertionError(f"Envoy is not ready: {log.read_text()[-2000:]}")


def _by_cluster(text: str) -> dict[str, list[str]]:
    """The lines of each cluster in their order; the clusters themselves come in the order of Envoy's hash table."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        found.setdefault(line.partition("::")[0], []).append(line)
    return found


def _without_build(value: Any) -> Any:
    """Without what tells Envoy's build from ours."""
    if isinstance(value, dict):
        ours = ("extensions", "user_agent_name", "user_agent_build_version")
        return {name: _without_build(inner) for name, inner in value.items() if name not in ours}
    return [_without_build(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("query", ["", "?filter=%5Eb", "?filter=nothing", "?format=xml"])
def test_clusters_are_listed_line_by_line(pair: Pair, query: str) -> None:
    envoy, ours = pair.ask(f"/clusters{query}")
    assert _by_cluster(ours.body) == _by_cluster(envoy.body)
    assert ours.headers["content-type"] == envoy.headers["content-type"]


@pytest.mark.parametrize("query", ["", "&filter=%5E(a%7Cb)$"])
def test_clusters_in_json_are_the_same_text_cluster_by_cluster(pair: Pair, query: str) -> None:
    envoy, ours = pair.json(f"/clusters?format=json{query}")

    def texts(page: Any) -> list[str]:
        return sorted(json.dumps(cluster) for cluster in page["cluster_statuses"])

    assert texts(ours) == texts(envoy)


def test_no_clusters_in_json(pair: Pair) -> None:
    envoy, ours = pair.ask("/clusters?format=json&filter=nothing")
    assert ours.body == envoy.body == "{}\n"


def test_listeners(pair: Pair) -> None:
    def without_ports(text: str) -> str:
        return re.sub(r"(:|_value\": )\d+\b(?!\.)", r"\1PORT", text)

    for target in ("/listeners", "/listeners?format=json"):
        envoy, ours = pair.ask(target)
        assert without_ports(ours.body) == without_ports(envoy.body)
        assert ours.headers["content-type"] == envoy.headers["content-type"]


def test_server_info_has_the_same_keys_in_the_same_order(pair: Pair) -> None:
    envoy, ours = pair.json("/server_info")
    assert list(ours) == list(envoy)
    assert list(ours["command_line_options"]) == list(envoy["command_line_options"])
    for name, value in envoy["command_line_options"].items():
        assert type(ours["command_line_options"][name]) is type(value), name
    assert list(_without_build(ours["node"])) == list(_without_build(envoy["node"]))
    assert _without_build(ours["node"]) == _without_build(envoy["node"])
    assert ours["state"] == envoy["state"] == "LIVE"


@pytest.mark.parametrize("path", ["/ready", "/certs", "/init_dump", "/reset_counters", "/reopen_logs", "/stats?type=x"])
def test_pages_that_are_the_same_byte_for_byte(pair: Pair, path: str) -> None:
    envoy, ours = pair.ask(path, "POST")
    assert (ours.status, ours.body) == (envoy.status, envoy.body)
    assert ours.headers["content-type"] == envoy.headers["content-type"]


def test_memory_and_runtime_have_the_same_shape(pair: Pair) -> None:
    envoy, ours = pair.json("/memory")
    assert list(ours) == list(envoy)
    assert all(value.isdigit() for value in ours.values())
    envoy, ours = pair.json("/runtime")
    assert ours == envoy


def test_every_head_has_envoys_fields(pair: Pair) -> None:
    envoy, ours = pair.ask("/ready")
    for answer in (envoy, ours):
        answer.headers.pop("date")
    assert ours.headers == envoy.headers


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/ready", "/healthcheck/ok"])
def test_other_methods(pair: Pair, method: str, path: str) -> None:
    envoy, ours = pair.ask(path, method)
    assert (ours.status, ours.body) == (envoy.status, envoy.body)


@pytest.mark.parametrize(
    "path", ["/healthcheck/fail", "/quitquitquit", "/drain_listeners", "/reset_counters", "/logging?level=info"]
)
def test_state_does_not_change_over_get(pair: Pair, path: str) -> None:
    before = list(pair.ours.calls.made)
    envoy, ours = pair.ask(path)
    assert (ours.status, ours.body) == (envoy.status, envoy.body)
    assert ours.status == 405
    assert pair.ours.calls.made == before


@pytest.mark.parametrize(
    "path", ["//ready", "/stats/../ready", "/%72eady", "/ready/", "/nothing", "/stats%2fprometheus"]
)
def test_paths_are_normalised_and_then_compared_whole(pair: Pair, path: str) -> None:
    envoy, ours = pair.ask(path)
    assert ours.status == envoy.status
    assert ours.body.partition("\n")[0] == envoy.body.partition("\n")[0]


def test_listings_of_commands_have_envoys_layout(pair: Pair) -> None:
    shape = re.compile(r"(  /[\w/]*( \(POST\))?: .+|      \w+: .+|admin commands are:)")
    envoy, ours = pair.ask("/help")
    for answer in (envoy, ours):
        assert all(shape.fullmatch(line) for line in answer.body.splitlines() if line)
    listed = {line.partition(":")[0] for line in envoy.body.splitlines()}
    own = {line.partition(":")[0] for line in ours.body.splitlines() if line.startswith("  /")}
    assert own - listed == {"  /explain"}


@pytest.mark.parametrize(
    "query", ["level=nope", "nothing=info", "a=b&c=d", "paths=http", "paths=:info", "paths=http:nope"]
)
def test_logging_refuses_as_envoy_does(pair: Pair, query: str) -> None:
    envoy, ours = pair.ask(f"/logging?{query}", "POST")
    assert ours.status == envoy.status == 400
    assert ours.body.partition("\n")[0] == envoy.body.partition("\n")[0]


@pytest.mark.parametrize("query", ["", "?level=", "?paths="])
def test_logging_lists(pair: Pair, query: str) -> None:
    envoy, ours = pair.ask(f"/logging{query}", "POST")
    assert ours.status == envoy.status == 200
    for answer in (envoy, ours):
        assert re.fullmatch(r"active loggers:\n(  \w+(\.\w+)*: \w+\n)+\n", answer.body)


@pytest.mark.parametrize("target", ["/runtime_modify", "/runtime_modify?a=b"])
def test_the_runtime_is_not_changed(pair: Pair, target: str) -> None:
    envoy, ours = pair.ask(target, "POST")
    assert (ours.status, ours.body) == (envoy.status, envoy.body)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?include_eds",
        "?name_regex=%5Ea",
        "?resource=static_clusters",
        "?resource=static_listeners",
        "?resource=static_route_configs",
        "?resource=static_endpoint_configs&include_eds",
        "?resource=dynamic_listeners",
        "?resource=static_clusters&mask=cluster.name",
        "?resource=static_clusters&mask=cluster.load_assignment.endpoints,last_updated",
        "?resource=static_clusters&name_regex=%5Ee",
        "?resource=static_clusters&name_regex=nothing",
        "?mask=bootstrap.node.id",
        "?mask=bootstrap.static_resources.clusters",
        "?mask=bootstrap.layered_runtime,last_updated",
        "?mask=static_clusters",
        "?mask=version_info",
    ],
)
def test_config_dump_is_the_same_line_by_line(pair: Pair, query: str) -> None:
    envoy, ours = pair.ask(f"/config_dump{query}")
    assert envoy.status == ours.status == 200
    assert ours.headers["content-type"] == envoy.headers["content-type"]

    def without_volatile(answer: Answer) -> str:
        return json.dumps(_without_build(json.loads(_VOLATILE.sub(r'"\1": ""', answer.body))), indent=1)

    if '"node"' in envoy.body or '"static_layer"' in envoy.body:  # Struct's members come in the order of a hash table
        assert json.loads(without_volatile(ours)) == json.loads(without_volatile(envoy))
    else:
        assert _VOLATILE.sub("", ours.body) == _VOLATILE.sub("", envoy.body)


@pytest.mark.parametrize(
    "query",
    [
        "?resource=bootstrap",
        "?resource=nothing",
        "?resource=static_endpoint_configs",
        "?mask=nothing",
        "?mask=nothing,bootstrap.node.id",
        "?mask=static_clusters.cluster",
        "?name_regex=(",
    ],
)
def test_config_dump_refuses_as_envoy_does(pair: Pair, query: str) -> None:
    envoy, ours = pair.ask(f"/config_dump{query}")
    assert ours.status == envoy.status
    assert ours.headers["content-type"] == envoy.headers["content-type"]
    assert ours.body == envoy.body


@pytest.mark.parametrize("mask", ["nothing", "cluster.nothing", "cluster.name.more"])
def test_masks_that_fit_no_resource(pair: Pair, mask: str) -> None:
    envoy, ours = pair.ask(f"/config_dump?resource=static_clusters&mask={mask}")
    assert ours.status == envoy.status == 400
    assert mask in ours.body
