"""A node agent as Istio's: SDS by grpcio over a Unix socket, state of the world and deltas, by the names that are asked for."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")  # the proxies that tests start would die of it

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.secret.v3 import sds_pb2_grpc
from google.protobuf import json_format

from sidecar.config.extensions import message_class

SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret"
URL = f"type.googleapis.com/{SECRET}"


class Agent(sds_pb2_grpc.SecretDiscoveryServiceServicer):
    """Answers for the secrets that it has, and pushes them when they change; what it has not it is silent about.

    ``asked`` are all requests, and ``refused`` the errors among them. It may ``stop``, and ``start`` again at the same socket.
    """

    def __init__(self, socket: Path, secrets: Mapping[str, Any] | None = None) -> None:
        self.socket = socket
        self.secrets: dict[str, Any] = {name: _message(name, one) for name, one in (secrets or {}).items()}
        self.versions = dict.fromkeys(self.secrets, 1)
        self.asked: list[Any] = []
        self.refused: list[str] = []
        self._streams: list[queue.SimpleQueue[Any]] = []
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Listen."""
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        sds_pb2_grpc.add_SecretDiscoveryServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self._server.add_insecure_port(f"unix:{self.socket}")
        self._server.start()

    def stop(self) -> None:
        """Cut all streams and be gone."""
        if self._server is not None:
            for stream in self._streams:
                stream.put(None)
            self._server.stop(0).wait(10)
            self._server = None

    def set(self, **secrets: Any) -> None:
        """Have other secrets, and tell those who asked for them."""
        for name, document in secrets.items():
            self.secrets[name] = _message(name, document)
            self.versions[name] = self.versions.get(name, 0) + 1
            for stream in list(self._streams):
                stream.put(name)

    def __enter__(self) -> Agent:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def StreamSecrets(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        wanted: set[str] = set()
        for event in self._events(requests, context):
            if isinstance(event, str):
                due = {event} & wanted
            else:
                due = set(event.resource_names) - wanted
                wanted |= due
            for name in sorted(due & set(self.secrets)):
                answer = discovery_pb2.DiscoveryResponse(
                    type_url=URL, version_info=str(self.versions[name]), nonce=f"{name}-{self.versions[name]}"
                )
                answer.resources.add().Pack(self.secrets[name])
                yield answer

    def DeltaSecrets(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        wanted: set[str] = set()
        for event in self._events(requests, context):
            if isinstance(event, str):
                due = {event} & wanted
            else:
                due = set(event.resource_names_subscribe)
                wanted = (wanted | due) - set(event.resource_names_unsubscribe)
            for name in sorted(due & set(self.secrets)):
                version = str(self.versions[name])
                answer = discovery_pb2.DeltaDiscoveryResponse(type_url=URL, nonce=f"{name}-{version}")
                answer.resources.add(name=name, version=version).resource.Pack(self.secrets[name])
                yield answer

    def _events(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """Requests, and names whose secrets have changed, until the end."""
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._streams.append(events)
        context.add_callback(lambda: events.put(None))

        def read() -> None:
            try:
                for request in requests:
                    self.asked.append(request)
                    if request.HasField("error_detail"):
                        self.refused.append(request.error_detail.message)
                    events.put(request)
            except grpc.RpcError:
                pass
            events.put(None)

        reader = futures.ThreadPoolExecutor(1)
        reader.submit(read)
        try:
            while (event := events.get()) is not None:
                yield event
        finally:
            self._streams.remove(events)
            reader.shutdown(wait=False)


def _message(name: str, document: Any) -> Any:
    return json_format.ParseDict({"name": name, **document}, message_class(SECRET)())


def agent_cluster(socket: Path, name: str = "sds-grpc") -> dict[str, Any]:
    """The static cluster that leads to it, as in a bootstrap of Istio's."""
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(socket)}}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def sds(name: str, api_type: str = "GRPC", cluster: str = "sds-grpc", wait: str = "0s") -> dict[str, Any]:
    """A secret of the agent's, as Istio's listeners and clusters name it; ``wait`` is how long they wait for it, 0 for ever."""
    return {
        "name": name,
        "sds_config": {
            "resource_api_version": "V3",
            "initial_fetch_timeout": wait,
            "api_config_source": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": cluster}}],
            },
        },
    }
