"""Connections that iptables redirects, in a network of their own: they reach the listener of their original destination."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary

_TYPE = "type.googleapis.com/envoy.extensions.filters.network"
_NETWORK = ("unshare", "--user", "--map-root-user", "--net", "sh", "-e", "-c")
_RULE = "iptables -t nat -A OUTPUT -p tcp -d 127.0.0.5 -j REDIRECT --to-ports 15001"
_TALK = f"""
ip link set lo up
{_RULE}
"$@" >"$0" 2>&1 & proxy=$!
trap 'kill $proxy; wait $proxy || true' EXIT
for port in 80 81; do
    curl -s --retry 100 --retry-delay 0 --retry-connrefused --max-time 20 http://127.0.0.5:$port/
    echo
done
"""


def _listener(name: str, address: str, port: int, said: str, **fields: Any) -> dict[str, Any]:
    config = {"@type": f"{_TYPE}.direct_response.v3.Config", "response": {"inline_string": said}}
    return {
        "name": name,
        "address": {"socket_address": {"address": address, "port_value": port}},
        "filter_chains": [{"filters": [{"name": "say", "typed_config": config}]}],
        **fields,
    }


@pytest.mark.parametrize("proxy", ["envoy", "sidecar"])
def test_use_original_dst(proxy: str, tmp_path: Path) -> None:
    missing = [one for one in ("unshare", "iptables", "ip", "curl") if shutil.which(one) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    allowed = subprocess.run([*_NETWORK, f"ip link set lo up\n{_RULE}"], capture_output=True, text=True, timeout=20)
    if allowed.returncode:
        pytest.skip(f"no network of its own: {allowed.stderr.strip()}")
    try:
        command = [envoy_binary(), "--use-dynamic-base-id"] if proxy == "envoy" else [sys.executable, "-m", "sidecar"]
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))
    answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    listeners = [
        _listener("captured", "127.0.0.1", 15001, f"{answer}other", use_original_dst=True),
        _listener("own", "127.0.0.5", 80, f"{answer}owner", bind_to_port=False),
    ]
    path, log = tmp_path / "bootstrap.json", tmp_path / "proxy.log"
    path.write_text(json.dumps({"static_resources": {"listeners": listeners}}))
    done = subprocess.run(
        [*_NETWORK, _TALK, str(log), *command, "--config-path", str(path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["owner", "other"], (done.stderr, log.read_text()[-2000:])
