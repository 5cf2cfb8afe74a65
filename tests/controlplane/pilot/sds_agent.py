"""What an agent beside a proxy does for its TLS: serves `default` and `ROOTCA` over SDS on a Unix socket, by grpcio."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

from tests.sidecar.transport.certificates import Authority, Certificate

TYPE_URL = "type.googleapis.com/" + Secret.DESCRIPTOR.full_name


class SdsAgent(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Serves one workload's certificate, until `close`."""

    def __init__(self, path: Path, certificate: Certificate, authority: Authority) -> None:
        self.path = path
        own, roots = Secret(name="default"), Secret(name="ROOTCA")
        own.tls_certificate.certificate_chain.inline_bytes = certificate.pem
        own.tls_certificate.private_key.inline_bytes = certificate.key_pem
        roots.validation_context.trusted_ca.inline_bytes = authority.pem
        self._secrets = {"default": own, "ROOTCA": roots}
        self._server = grpc.server(ThreadPoolExecutor(16))
        self._server.add_generic_rpc_handlers((self,))
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()

    def service(self, details: Any) -> Any:
        """The one method that proxies call."""
        if details.method != "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets":
            return None
        return grpc.stream_stream_rpc_method_handler(
            self._stream, DiscoveryRequest.FromString, DiscoveryResponse.SerializeToString
        )

    def _stream(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for number, request in enumerate(requests):
            assert not request.HasField("error_detail"), request.error_detail
            if request.version_info:
                continue  # it has what there is
            answer = DiscoveryResponse(type_url=TYPE_URL, version_info="1", nonce=str(number))
            for name in request.resource_names:
                answer.resources.add().Pack(self._secrets[name])
            yield answer

    def cluster(self) -> dict[str, Any]:
        """The cluster that proxies reach it by."""
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        endpoint = {"endpoint": {"address": {"pipe": {"path": str(self.path)}}}}
        return {
            "name": "sds-grpc",
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                options: {
                    "@type": f"type.googleapis.com/{options}",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }
            },
            "load_assignment": {"cluster_name": "sds-grpc", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }

    def close(self) -> None:
        """End all streams."""
        self._server.stop(None).wait()
