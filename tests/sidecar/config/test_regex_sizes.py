"""How large regular expressions may be: counted as real Envoy counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import re2

from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary

_TYPE = "type.googleapis.com/envoy.extensions.filters"
_KEY = "re2.max_program_size.error_level"
_SIZES = [("a" * 96, 100), ("[^/]+/\u00e9", 10), (r"\pL{40}", 284), ("(?:[a-z]{1,30}){1,30}", 1803)]


def _bootstrap(regex: str, runtime: dict[str, Any]) -> str:
    router = {"name": "router", "typed_config": {"@type": f"{_TYPE}.http.router.v3.Router"}}
    route = {"match": {"safe_regex": {"regex": regex}}, "direct_response": {"status": 200}}
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "http_filters": [router],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    listener = {
        "name": "one",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    layers = [{"name": "static", "static_layer": runtime}]
    return json.dumps({"static_resources": {"listeners": [listener]}, "layered_runtime": {"layers": layers}})


def _refused(proxy: str, path: Path, regex: str, runtime: dict[str, Any]) -> str:
    """What the proxy complains of; empty if it takes the expression."""
    try:
        command = [envoy_binary(), "--use-dynamic-base-id"] if proxy == "envoy" else [sys.executable, "-m", "sidecar"]
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))
    path.write_text(_bootstrap(regex, runtime))
    command += ["--mode", "validate", "--config-path", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize(("regex", "size"), _SIZES, ids=[str(size) for _, size in _SIZES])
@pytest.mark.parametrize("proxy", ["envoy", "sidecar"])
def test_the_runtime_says_how_large(proxy: str, regex: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / "bootstrap.json"
    assert not _refused(proxy, path, regex, {_KEY: size})
    assert f"{size}" in _refused(proxy, path, regex, {_KEY: str(size - 1)})


def test_by_itself_envoy_takes_a_hundred_and_the_sidecar_more(tmp_path: Path) -> None:
    path = tmp_path / "bootstrap.json"
    assert re2.compile("a" * 97).programsize == 101
    assert not _refused("sidecar", path, "a" * 97, {})
    assert not _refused("envoy", path, "a" * 96, {})
    assert "program size of 101 > max program size of 100" in _refused("envoy", path, "a" * 97, {})
