"""The extensions of Istio's own that the sidecar may leave out of a configuration, and what is missing without each.

istiod sends them to every sidecar. What is here observes, or tells peers about itself: without it requests go the same
way, and nobody gets in who did not before. What decides who may call (`istio_authn`, WebAssembly) is never here, and is
refused as everything else is that is not known. docs/with-istiod.md is this table for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from sidecar.config.extensions import TYPED_STRUCTS, message_class, type_name_of

if TYPE_CHECKING:
    from sidecar.config.fields import Node

_STATS: Final = "stats.PluginConfig"
_METADATA_EXCHANGE: Final = "envoy.tcp.metadataexchange.config.MetadataExchange"
_NO_EXCHANGE: Final = (
    "no metadata is exchanged with peers over TCP, and the protocol istio-peer-exchange is not offered"
)
_NO_STATS: Final = "Istio's own statistics (istio_requests_total and so on) are not written; Envoy's are"

HTTP_FILTERS: Final[Mapping[str, str]] = {
    _STATS: _NO_STATS,
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig": (
        "upstream connections offer the application protocols of their cluster as they stand"
    ),
    "io.istio.http.peer_metadata.Config": (
        "x-envoy-peer-metadata headers are neither written nor taken out, and nothing is known of peers but their identity"
    ),
}
"""Of a connection manager's chain, by the full names of their messages: what is missing then."""

NETWORK_FILTERS: Final[Mapping[str, str]] = {_STATS: _NO_STATS, _METADATA_EXCHANGE: _NO_EXCHANGE}
"""The same for a filter chain of a listener."""

UPSTREAM_FILTERS: Final[Mapping[str, str]] = {_METADATA_EXCHANGE: _NO_EXCHANGE}
"""The same for a cluster's `filters`."""

BOOTSTRAP_EXTENSIONS: Final[Mapping[str, str]] = {
    "istio.workload.BootstrapExtension": "workloads are not discovered, of which only statistics would know",
    "envoy.extensions.bootstrap.internal_listener.v3.InternalListener": (
        "it is for listeners with an internal address, and those are refused"
    ),
}
"""The same for `bootstrap_extensions`."""

PEER_EXCHANGE: Final = "istio-peer-exchange"
"""The application protocol of connections that begin with metadata. It is never offered nor chosen: a peer that saw it
agreed on would write metadata where the other side reads requests.
"""

WITHOUT_MESSAGES: Final = frozenset(
    name
    for table in (HTTP_FILTERS, NETWORK_FILTERS, UPSTREAM_FILTERS, BOOTSTRAP_EXTENSIONS)
    for name in table
    if not name.startswith("envoy.extensions.")
)
"""Those whose messages xds-protos has not got: there is nothing to read or to check in them."""


def kept(nodes: Iterable[Node], may_go: Mapping[str, str]) -> list[Node]:
    """These extensions without those of the types in ``may_go``, of each of which one warning tells."""
    return [node for node in nodes if not _is_left_out(node, may_go)]


def _is_left_out(node: Node, may_go: Mapping[str, str]) -> bool:
    type_name = inner_type(getattr(node.message, "typed_config", None))
    if type_name not in may_go:
        return False
    node.disregard()
    if node.context.first_ignored(type_name, ""):
        node.context.warn(node.path, f"{type_name} is left out: {may_go[type_name]}")
    return True


def inner_type(packed: object) -> str:
    """The full name of the message in an Any, or in the TypedStruct in it; empty if that cannot be told."""
    type_name = type_name_of(getattr(packed, "type_url", ""))
    if type_name not in TYPED_STRUCTS:
        return type_name
    try:
        struct = message_class(type_name).FromString(getattr(packed, "value", b""))
    except DecodeError:
        return ""
    return type_name_of(getattr(struct, "type_url", ""))
