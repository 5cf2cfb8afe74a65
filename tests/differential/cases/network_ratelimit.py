"""Connections that a service counts, and those that share a bucket."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import (
    Message,
    Site,
    bootstrap,
    cluster,
    listener,
    network_filter,
)
from tests.differential.case import AwaitBytes, AwaitClose, Reply, Table, Tunnel
from tests.differential.cases.ratelimit import ERRORS, NEVER_ANSWERED, OK, OVER, SERVICE, SLOWLY, says
from tests.differential.cases.tcp import tcp_proxy
from tests.differential.http2_case import http2_cluster

ONE: Message = {"entries": [{"key": "k", "value": "v"}]}


def network_ratelimit(site: Site) -> Message:
    def asked(**fields: Any) -> Message:
        usual = {"stat_prefix": "limit", "domain": "test", "descriptors": [ONE], "timeout": "2s"}
        return network_filter("ratelimit", "RateLimit", **{**usual, "rate_limit_service": SERVICE, **fields})

    gone = {"grpc_service": {"envoy_grpc": {"cluster_name": "gone"}}, "transport_api_version": "V3"}
    formats = ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%PROTOCOL%", "a %REQUESTED_SERVER_NAME% b", "")
    filters = {
        "tcp": asked(),
        "deny": asked(failure_mode_deny=True),
        "formats": asked(
            descriptors=[
                {"entries": [{"key": f"k{number}", "value": value} for number, value in enumerate(formats)]},
                {**ONE, "limit": {"requests_per_unit": 5, "unit": "DAY"}, "hits_addend": 3},
            ]
        ),
        "slow": asked(timeout="0.2s"),
        "deny-slow": asked(timeout="0.2s", failure_mode_deny=True),
        "gone": asked(rate_limit_service=gone),
        "deny-gone": asked(rate_limit_service=gone, failure_mode_deny=True),
    }
    bucket = {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"}

    def local(**fields: Any) -> Message:
        return network_filter("local_ratelimit", "LocalRateLimit", stat_prefix="local", token_bucket=bucket, **fields)

    shared = {
        "shared-one": local(share_key="k"),
        "shared-two": local(share_key="k"),
        "shared-other": local(share_key="l"),
        "shared-none": local(),
    }
    listeners = [listener(site, name, one, tcp_proxy(site)) for name, one in {**filters, **shared}.items()]
    listeners.append(listener(site, "two", asked(), asked(domain="second"), tcp_proxy(site)))
    clusters = [cluster(site, "tcp"), http2_cluster(site, "c", "c"), http2_cluster(site, "gone", "refused")]
    return bootstrap(site, listeners, clusters)


BOOTSTRAPS = {"network-ratelimit": network_ratelimit}

table = Table("network-ratelimit", "network-ratelimit")
CASES = table.cases


def passes(name: str, answer: Reply, listener: str = "tcp") -> None:
    """The connection is let through."""
    table.raw(
        name, b"ping", AwaitBytes(b"PING"), listener=listener, upstream={"c": (answer,), "tcp": (Reply((Tunnel(),)),)}
    )


def closed(name: str, answer: Reply, listener: str = "tcp") -> None:
    """The proxy closes it."""
    table.raw(name, b"ping", AwaitClose(), listener=listener, upstream={"c": (answer,), "tcp": (Reply((Tunnel(),)),)})


passes("ok", OK)
closed("over", OVER)
passes("formats", OK, "formats")
passes("metadata", says(dynamic_metadata={"a": 1}))
passes("slowly", SLOWLY)
passes("too-slow", NEVER_ANSWERED, "slow")
closed("too-slow-deny", NEVER_ANSWERED, "deny-slow")
passes("gone", OK, "gone")
closed("deny-gone", OK, "deny-gone")
passes("two-filters", OK, "two")
closed("two-filters-over", OVER, "two")
for _name in ("error-status", "not-a-message", "http-503", "reset"):
    passes(f"{_name}-allow", ERRORS[_name])
    closed(f"{_name}-deny", ERRORS[_name], "deny")
passes("shared-one", OK, "shared-one")
closed("shared-two", OK, "shared-two")
passes("shared-other", OK, "shared-other")
passes("shared-none", OK, "shared-none")
table.get("counted", "/stats?filter=(^|\\.)(local_rate_limit|ratelimit)\\.", listener="admin", access_log=False)
