"""A proxy that speaks xDS over TLS goes on by the certificate that was renewed beside it: ours and real Envoy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from controlplane.cli.api import Api
from controlplane.cli.identity import renew
from controlplane.cli.kubeconfig import Access
from tests.controlplane.whole import whole
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import start
from tests.running import free_ports, get, until


def serials(admin: int) -> set[str]:
    """Of the certificates that the proxy has, by its own word."""
    status, _, body = get(admin, "/certs")
    assert status == 200
    found: Any = json.loads(body)
    return {
        chain["serial_number"].lower().replace(":", "").lstrip("0")
        for certificate in found["certificates"]
        for chain in certificate.get("cert_chain", ())
    }


@pytest.mark.parametrize("kind", ["envoy", "sidecar"])
def test_a_renewed_certificate_is_taken_up(kind: str, tmp_path: Path) -> None:
    if kind == "envoy":
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    with whole(tmp_path / "mesh") as mesh:
        token = mesh.api.request("POST", "/mizzen/v1/tokens", {"namespace": "shop", "serviceAccount": "page"})["token"]
        proxy_port, admin, inbound, app = free_ports(4)
        identity = tmp_path / "identity"
        text = mesh.mizzen(
            "bootstrap", "--namespace", "shop", "--service", "page", "--address", "127.0.2.9", "--port", str(inbound),
            "--app", f"127.0.0.1:{app}", "--proxy-port", str(proxy_port), "--admin-port", str(admin),
            "--token", token, "--identity-dir", str(identity),
        )  # fmt: skip
        running = start(
            kind, yaml.safe_load(text), {"admin": admin, "proxy": proxy_port, "inbound": inbound}, tmp_path / kind
        )
        try:
            mesh.settle(1)
            before = serials(admin)
            renew(Api(Access(mesh.api.access.server, mesh.api.access.authority, "")), identity)
            leaf = x509.load_pem_x509_certificates((identity / "chain.pem").read_bytes())[0]
            wanted = f"{leaf.serial_number:x}"
            assert wanted not in before
            until(lambda: wanted in serials(admin), "the proxy has the new certificate", timeout=20)
            mesh.kill()
            mesh.start()
            until(lambda: len(mesh.proxies()) == 1, "it comes back by that", timeout=30)
        finally:
            running.stop()
