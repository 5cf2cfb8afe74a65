"""A node agent for the proxies of a run: SDS over a Unix socket, with the certificate and a bundle for SPIFFE validation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_spiffe_validator_config_pb2
from envoy.service.discovery.v3 import discovery_pb2
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

_URL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_METHOD = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"


class _Agent:
    def __init__(self, secrets: dict[str, Any]) -> None:
        self.secrets = secrets

    def __mapping__(self) -> dict[str, Handler]:
        messages = discovery_pb2.DiscoveryRequest, discovery_pb2.DiscoveryResponse
        return {_METHOD: Handler(self.stream, Cardinality.STREAM_STREAM, *messages)}

    async def stream(self, stream: Any) -> None:
        async for request in stream:
            if not request.response_nonce:
                answer = discovery_pb2.DiscoveryResponse(type_url=_URL, version_info="1", nonce="1")
                for name in request.resource_names:
                    answer.resources.add().Pack(self.secrets[name])
                await stream.send_message(answer)


def _secrets(directory: Path) -> dict[str, Any]:
    """The certificate, and the roots of two trust domains, so that each peer's domain is looked for."""
    own = secret_pb2.Secret(name="default")
    own.tls_certificate.certificate_chain.inline_bytes = (directory / "server.pem").read_bytes()
    own.tls_certificate.private_key.inline_bytes = (directory / "server.key").read_bytes()
    bundles = tls_spiffe_validator_config_pb2.SPIFFECertValidatorConfig()
    roots = base_pb2.DataSource(inline_bytes=(directory / "ca.pem").read_bytes())
    for domain in ("cluster.local", "partner.example"):
        bundles.trust_domains.add(name=domain, trust_bundle=roots)
    validation = secret_pb2.Secret(name="ROOTCA")
    validator = validation.validation_context.custom_validator_config
    validator.name = "envoy.tls.cert_validator.spiffe"
    validator.typed_config.Pack(bundles)
    return {"default": own, "ROOTCA": validation}


@contextmanager
def node_agent(directory: Path) -> Iterator[Path]:
    """The socket of an agent that serves what is in the directory."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    path = directory / "agent.sock"
    server = Server([_Agent(_secrets(directory))], loop=loop)
    try:
        asyncio.run_coroutine_threadsafe(server.start(path=str(path)), loop).result(10)
        yield path
    finally:
        loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(server.wait_closed(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        path.unlink(missing_ok=True)
