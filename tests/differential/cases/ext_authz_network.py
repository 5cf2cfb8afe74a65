"""Connections that an authorization service lets in, or not."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, cluster, listener, network_filter
from tests.differential.case import AwaitBytes, AwaitClose, Delay, ReadBody, Reply, Table, Tunnel
from tests.differential.cases.ext_authz import DENIED, ERRORS, NEVER_ANSWERED, OK, SERVICE, SLOWLY, denied, says
from tests.differential.cases.tcp import tcp_proxy
from tests.differential.http2_case import http2_cluster

MARKED: Message = {
    "filter": "envoy.filters.network.rbac",
    "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
    "value": {"string_match": {"prefix": "istio-ext-authz"}},
}


def shadow(**permission: Any) -> Message:
    """Istio's CUSTOM action, first half."""
    policy = {"permissions": [permission], "principals": [{"any": True}]}
    return network_filter(
        "rbac",
        "RBAC",
        stat_prefix="tcp.",
        shadow_rules={"action": "DENY", "policies": {"istio-ext-authz-ns[shop]-policy[p]-rule[0]": policy}},
        shadow_rules_stat_prefix="istio_ext_authz_",
    )


def ext_authz_network(site: Site) -> Message:
    def asked(**fields: Any) -> Message:
        usual = {"stat_prefix": "authz", "grpc_service": SERVICE, "transport_api_version": "V3"}
        return network_filter("ext_authz", "ExtAuthz", **{**usual, **fields})

    gone = {"envoy_grpc": {"cluster_name": "gone"}}
    filters = {
        "tcp": [asked()],
        "allow": [asked(failure_mode_allow=True)],
        "other": [asked(stat_prefix="other.one")],
        "labels": [asked(bootstrap_metadata_labels_key="labels", include_peer_certificate=True)],
        "session": [asked(include_tls_session=True)],
        "slow": [asked(grpc_service={**SERVICE, "timeout": "0.2s"})],
        "slow-allow": [asked(grpc_service={**SERVICE, "timeout": "0.2s"}, failure_mode_allow=True)],
        "default-timeout": [asked(grpc_service={"envoy_grpc": {"cluster_name": "c"}})],
        "gone": [asked(grpc_service=gone)],
        "gone-allow": [asked(grpc_service=gone, failure_mode_allow=True)],
        "custom": [shadow(any=True), asked(filter_enabled_metadata=MARKED)],
        "custom-not": [shadow(destination_port=1), asked(filter_enabled_metadata=MARKED, stat_prefix="unasked")],
        "namespaces": [shadow(any=True), asked(metadata_context_namespaces=["envoy.filters.network.rbac", "none"])],
        "two": [asked(), asked(stat_prefix="second")],
    }
    listeners = [listener(site, name, *one, tcp_proxy(site)) for name, one in filters.items()]
    return bootstrap(
        site,
        listeners,
        [cluster(site, "tcp"), http2_cluster(site, "c", "c"), http2_cluster(site, "gone", "refused")],
        node={
            "id": "differential",
            "cluster": "differential",
            "metadata": {"labels": {"app": "page", "version": "v1", "count": 3}},
        },
    )


BOOTSTRAPS = {"ext-authz-network": ext_authz_network}

table = Table("ext-authz-network", "ext-authz-network")
CASES = table.cases


def passes(name: str, answer: Reply, listener: str = "tcp") -> None:
    """The connection is let through."""
    table.raw(
        name,
        b"ping",
        AwaitBytes(b"PING"),
        listener=listener,
        upstream={"c": (answer,), "tcp": (Reply((Tunnel(),)),)},
        unordered=True,
    )


def closed(name: str, answer: Reply, listener: str = "tcp") -> None:
    """The proxy closes it. Envoy has opened a connection to the upstream by then; what comes there is not compared."""
    table.raw(
        name,
        b"ping",
        AwaitClose(),
        listener=listener,
        upstream={"c": (answer,), "tcp": (Reply((Tunnel(),)),)},
        partial=False,
        unordered=True,
        access_log=False,
    )


for _listener in ("tcp", "allow", "other", "labels", "session", "slow", "custom", "custom-not", "namespaces", "two"):
    passes(f"ok-{_listener}", OK, _listener)
    (passes if _listener == "custom-not" else closed)(f"denied-{_listener}", DENIED, _listener)
closed("denied-by-status", denied(401, body="no"))
closed("denied-by-unknown-status", says(status={"code": 99}))
passes("metadata", says(dynamic_metadata={"a": 1}))
passes("ok-with-headers", says(ok_response={"headers": [{"header": {"key": "a", "value": "b"}}]}))
for _name in ("error-status", "not-a-message", "http-503", "reset", "no-message", "trailers-only"):
    closed(f"{_name}-closed", ERRORS[_name])
    passes(f"{_name}-allow", ERRORS[_name], "allow")
closed("error-response", denied(503, kind="error_response"))
passes("error-response-allow", denied(503, kind="error_response"), "allow")
passes("slowly", SLOWLY)
closed("too-slow", NEVER_ANSWERED, "slow")
passes("too-slow-allow", NEVER_ANSWERED, "slow-allow")
closed("too-slow-by-default", NEVER_ANSWERED, "default-timeout")
closed("gone", OK, "gone")
passes("gone-allow", OK, "gone-allow")
closed("slowly-denied", Reply((ReadBody(), Delay(0.1), *DENIED.steps[1:])))
for _prefix in ("authz", "other", "second", "unasked"):
    table.get(f"counted-{_prefix}", f"/stats?filter=^ext_authz\\.{_prefix}", listener="admin", access_log=False)
table.get("tagged", "/stats/prometheus?filter=^ext_authz\\.(authz|other)", listener="admin", access_log=False)
