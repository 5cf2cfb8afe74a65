"""What each proxy has been sent and what it said of that: for `mizzen proxy-status`, and as Envoy's CSDS.

Source: `envoy.service.status.v3.ClientStatusDiscoveryService`; the words of the table are Istio's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from envoy.admin.v3.config_dump_shared_pb2 import ClientResourceStatus
from envoy.service.status.v3.csds_pb2 import ClientConfig, ClientStatusRequest, ClientStatusResponse, ConfigStatus
from google.protobuf.any_pb2 import Any as AnyMessage
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from controlplane.model.grpc_calls import certificate_of, source_of
from controlplane.xds.hub import Hub
from controlplane.xds.session import Session
from controlplane.xds.type_urls import SECRET, SHORT
from controlplane.xds.watch import Watch

_CONFIG: Final = {
    "SYNCED": ConfigStatus.SYNCED,
    "NOT SENT": ConfigStatus.NOT_SENT,
    "STALE": ConfigStatus.STALE,
    "NACKED": ConfigStatus.ERROR,
}
_CLIENT: Final = {"SYNCED": ClientResourceStatus.ACKED, "NACKED": ClientResourceStatus.NACKED}


def proxy_status(sessions: Iterable[Session]) -> list[dict[str, Any]]:
    """One JSON object for each stream, by proxy: its types with status, versions, sizes, and what it refused."""
    return [
        {
            "proxy": session.proxy.id,
            "name": f"{session.proxy.name}.{session.proxy.namespace}",
            "type": session.proxy.type.value,
            "dialect": "delta" if session.incremental else "state of the world",
            "connectedAt": session.connected_at,
            "pushes": session.pushes,
            "bytesSent": session.bytes_sent,
            "version": _version(session.node),
            "types": {SHORT.get(type_url, type_url): _of_watch(watch) for type_url, watch in session.watches.items()},
        }
        for session in sorted(sessions, key=lambda one: one.proxy.id)
    ]


def _version(node: Any) -> str:
    build = node.user_agent_build_version.version
    number = (
        f"{build.major_number}.{build.minor_number}.{build.patch}" if node.HasField("user_agent_build_version") else ""
    )
    return f"{node.user_agent_name} {number or node.user_agent_version}".strip()


def _of_watch(watch: Watch) -> dict[str, Any]:
    return {
        "status": watch.status,
        "resources": len(watch.sent),
        "sent": watch.version,
        "acknowledged": watch.acked_version,
        "error": watch.error,
    }


class ClientStatusService:
    """Envoy's CSDS over gRPC, for all streams or those of the nodes that are asked for by id.

    ``admit`` says whether the caller may know; it raises PermissionError. It gets the call's metadata, the caller's certificate
    and address.
    """

    def __init__(self, hub: Hub, admit: Callable[[Mapping[str, Any], Any, str], Awaitable[None]] | None) -> None:
        self.hub = hub
        self.admit = admit

    def __mapping__(self) -> dict[str, Handler]:
        """grpclib's table of methods."""
        start = "/envoy.service.status.v3.ClientStatusDiscoveryService/"
        return {
            f"{start}StreamClientStatus": Handler(self._stream, Cardinality.STREAM_STREAM, ClientStatusRequest, bytes),
            f"{start}FetchClientStatus": Handler(self._fetch, Cardinality.UNARY_UNARY, ClientStatusRequest, bytes),
        }

    async def _stream(self, stream: Stream[Any, Any]) -> None:
        await self._admitted(stream)
        while (request := await stream.recv_message()) is not None:
            await stream.send_message(self._answer(request))

    async def _fetch(self, stream: Stream[Any, Any]) -> None:
        await self._admitted(stream)
        await stream.send_message(self._answer(await stream.recv_message()))

    async def _admitted(self, stream: Stream[Any, Any]) -> None:
        if self.admit is None:
            return
        try:
            await self.admit(dict(stream.metadata or {}), certificate_of(stream), source_of(stream))
        except PermissionError as error:
            raise GRPCError(Status.PERMISSION_DENIED, str(error)) from error

    def _answer(self, request: Any) -> bytes:
        wanted = [_node_matcher(one) for one in request.node_matchers]
        configs = [
            self._config(session, leave_out=request.exclude_resource_contents)
            for session in self.hub.sessions
            if not wanted or any(matches(session.proxy.id) for matches in wanted)
        ]
        return bytes(ClientStatusResponse(config=configs).SerializeToString())

    def _config(self, session: Session, *, leave_out: bool) -> Any:
        config: Any = ClientConfig(node=session.node)
        config.generic_xds_configs.extend(self._resources(session, leave_out))
        return config

    def _resources(self, session: Session, leave_out: bool) -> Iterator[Any]:
        for type_url, watch in session.watches.items():
            for one in watch.sent.values():
                generic: Any = ClientConfig.GenericXdsConfig(
                    type_url=type_url,
                    name=one.name,
                    version_info=one.version,
                    config_status=_CONFIG[watch.status],
                    client_status=_CLIENT.get(watch.status, ClientResourceStatus.REQUESTED),
                )
                if watch.error and one.name in watch.last_sent:
                    generic.error_state.details = watch.error
                if not leave_out and type_url != SECRET:
                    generic.xds_config.CopyFrom(AnyMessage(type_url=type_url, value=one.value))
                yield generic


def _node_matcher(matcher: Any) -> Callable[[str], bool]:
    """Exact, prefix, suffix and contains are what is useful for ids; others are refused by name."""
    if matcher.node_metadatas:
        raise GRPCError(Status.UNIMPLEMENTED, "node_matchers.node_metadatas: match by node_id")
    pattern = matcher.node_id.WhichOneof("match_pattern")
    value = getattr(matcher.node_id, pattern) if pattern else ""
    tests: dict[str, Callable[[str], bool]] = {
        "exact": lambda text: text == value,
        "prefix": lambda text: text.startswith(value),
        "suffix": lambda text: text.endswith(value),
        "contains": lambda text: value in text,
    }
    if pattern not in tests:
        raise GRPCError(Status.UNIMPLEMENTED, f"node_matchers.node_id.{pattern}: use exact, prefix, suffix or contains")
    return tests[pattern]
