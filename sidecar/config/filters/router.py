"""The terminal filter: `extensions.filters.http.router.v3.Router`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.fields import Node
from sidecar.config.matcher import header_names

TYPE = "envoy.extensions.filters.http.router.v3.Router"

REPEAT_UNPROCESSED = "mizzen.router.repeat_unprocessed"


@dataclass(frozen=True, slots=True)
class Router:
    """How the router behaves towards both sides.

    `suppress_envoy_headers`: add no `x-envoy-*` headers. A request with an invalid value in one of
    `strict_check_headers` gets 400.
    `respect_expected_rq_timeout`: believe `x-envoy-expected-rq-timeout-ms` from the sidecar that sends it.
    `repeats_unprocessed`: repeat what no host has processed, without a retry policy; our own key of the runtime.
    """

    suppress_envoy_headers: bool = False
    strict_check_headers: tuple[bytes, ...] = ()
    respect_expected_rq_timeout: bool = False
    repeats_unprocessed: bool = True


def parse_router(node: Node) -> Router:
    """`Router`."""
    node.ignore("start_child_span", "nothing is traced")
    if not node.wrapped("dynamic_stats", True):
        node.ignore("dynamic_stats", "there are always statistics for response codes and zones")
    return Router(
        node.get("suppress_envoy_headers"),
        header_names(node.get("strict_check_headers")),
        node.get("respect_expected_rq_timeout"),
        node.context.runtime.flag(REPEAT_UNPROCESSED) is not False,
    )
