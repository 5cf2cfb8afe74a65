"""Where groups of statistics are named, and which parts of those names Envoy takes out as tags.

Envoy finds tags by matching every name against its default extractors. The shapes are few and known when a group is
added, so each has a function here that gives prefix, tags and tag-extracted prefix at once. Where Envoy's extractor
takes one dot-separated token, a name with dots loses only its first token to the tag, and so it does here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .naming import Tag

CLUSTER_NAME = "envoy.cluster_name"
HTTP_CONN_MANAGER_PREFIX = "envoy.http_conn_manager_prefix"
LISTENER_ADDRESS = "envoy.listener_address"
RESPONSE_CODE = "envoy.response_code"
RESPONSE_CODE_CLASS = "envoy.response_code_class"
VIRTUAL_HOST = "envoy.virtual_host"
VIRTUAL_CLUSTER = "envoy.virtual_cluster"
ROUTE = "envoy.route"
TCP_PREFIX = "envoy.tcp_prefix"
LOCAL_HTTP_RATELIMIT_PREFIX = "envoy.local_http_ratelimit_prefix"
LOCAL_NETWORK_RATELIMIT_PREFIX = "envoy.local_network_ratelimit_prefix"
RATELIMIT_PREFIX = "envoy.ratelimit_prefix"
EXT_AUTHZ_PREFIX = "envoy.ext_authz_prefix"
CONNECTION_LIMIT_PREFIX = "envoy.connection_limit_prefix"
RBAC_PREFIX = "envoy.rbac_prefix"
RBAC_HTTP_PREFIX = "envoy.rbac_http_prefix"
RBAC_POLICY_NAME = "envoy.rbac_policy_name"
WORKER_ID = "envoy.worker_id"
GRPC_BRIDGE_METHOD = "envoy.grpc_bridge_method"
GRPC_BRIDGE_SERVICE = "envoy.grpc_bridge_service"
SSL_CIPHER = "envoy.ssl_cipher"
SSL_CURVE = "envoy.ssl_curve"
SSL_VERSION = "envoy.ssl_version"
PROXY_PROTOCOL_VERSION = "envoy.proxy_protocol_version"


class Naming(NamedTuple):
    """How a group is called: the arguments of `StatsStore.add` after the group."""

    prefix: str
    tags: tuple[Tag, ...] = ()
    tag_extracted_prefix: str | None = None

    def below(self, words: str) -> Naming:
        """The naming of a group inside this one: `words` is added to both prefixes."""
        extracted = self.prefix if self.tag_extracted_prefix is None else self.tag_extracted_prefix
        return Naming(self.prefix + words, self.tags, extracted + words)


def sanitized(name: str) -> str:
    """`name` as Envoy writes it into a statistic's name (`Stats::Utility::sanitizeStatsName`)."""
    return name.replace("://", "_").replace(":/", "_").replace(":", "_").replace("\0", "_")


def _token(before: str, name: str, tag: str) -> Naming:
    """`before` + `name`, the first dot-separated token of `name` being the value of `tag`."""
    first, dot, rest = sanitized(name).partition(".")
    return Naming(f"{before}{first}{dot}{rest}.", ((tag, first),), f"{before}{rest}{dot}")


def cluster(name: str) -> Naming:
    """A cluster, by its `alt_stat_name` or its name."""
    return _token("cluster.", name, CLUSTER_NAME)


def grpc(cluster_name: str, protocol: str, service: str, method: str) -> Naming:
    """The calls of a method, or without service and method those that are not told apart.

    ``protocol`` is ``grpc`` or ``grpc-web``. Envoy takes the first two dot-separated words behind ``grpc`` for service and
    method, whatever they are, and finds neither behind ``grpc-web``.
    """
    outer = cluster(cluster_name).below(f"{protocol}.")
    if not service:
        return outer
    words = sanitized(f"{service}.{method}")
    if protocol != "grpc":
        return outer.below(f"{words}.")
    first, second, *rest = words.split(".")
    extracted = f"{outer.tag_extracted_prefix}{''.join(f'{word}.' for word in rest)}"
    found = ((GRPC_BRIDGE_METHOD, second), (GRPC_BRIDGE_SERVICE, first))
    return Naming(f"{outer.prefix}{words}.", (*found, *outer.tags), extracted)


def cluster_ext_authz(cluster_name: str, stat_prefix: str) -> Naming:
    """What an authorization service said about the requests to a cluster."""
    return _ext_authz(cluster(cluster_name), stat_prefix)


def http_ext_authz(manager: str, stat_prefix: str) -> Naming:
    """What an authorization service said about the requests of a connection manager."""
    return _ext_authz(http_connection_manager(manager), stat_prefix)


def _ext_authz(outer: Naming, stat_prefix: str) -> Naming:
    inner = outer.below("ext_authz.")
    words = sanitized(stat_prefix).removesuffix(".")
    if not words:
        return inner
    found = sorted((*inner.tags, (EXT_AUTHZ_PREFIX, words)))
    return Naming(f"{inner.prefix}{words}.", tuple(found), inner.tag_extracted_prefix)


def cluster_ratelimit(cluster_name: str, stat_prefix: str) -> Naming:
    """What a rate limit service said about the requests to a cluster."""
    return cluster(cluster_name).below(f"ratelimit.{sanitized(stat_prefix)}." if stat_prefix else "ratelimit.")


def http_connection_manager(stat_prefix: str) -> Naming:
    """A connection manager, and the filters in it with `below("fault.")` and the like."""
    return _token("http.", stat_prefix, HTTP_CONN_MANAGER_PREFIX)


_ADDRESS = re.compile(r"(?:[_.\d]*|[_\[\]aAbBcCdDeEfF\d]*)")


def listener(name: str) -> Naming:
    """A listener, by its `stat_prefix` or its address (`127.0.0.1:80`, a path). The admin's is called `admin` and has
    no tag.
    """
    name = sanitized(name)
    if name == "admin":
        return Naming("listener.admin.")
    if _ADDRESS.fullmatch(name):
        return Naming(f"listener.{name}.", ((LISTENER_ADDRESS, name),), "listener.")
    return _token("listener.", name, LISTENER_ADDRESS)


def listener_http(name: str, stat_prefix: str) -> Naming:
    """What a listener counts for one connection manager behind it."""
    outer = listener(name)
    inner = _token("http.", stat_prefix, HTTP_CONN_MANAGER_PREFIX)
    words = outer.prefix if outer.tag_extracted_prefix is None else outer.tag_extracted_prefix
    return Naming(outer.prefix + inner.prefix, inner.tags + outer.tags, words + (inner.tag_extracted_prefix or ""))


def worker(outer: Naming, index: int) -> Naming:
    """What one worker counts inside `outer` (`listener(...)`, `Naming("server.")`). In Envoy, the admin's connections
    are the main thread's, and so they are called here.
    """
    if outer.prefix == "listener.admin.":
        return outer.below("main_thread.")
    words = outer.prefix if outer.tag_extracted_prefix is None else outer.tag_extracted_prefix
    if words.count(".") > 1:
        return outer.below(f"worker_{index}.")
    return Naming(f"{outer.prefix}worker_{index}.", ((WORKER_ID, str(index)), *outer.tags), f"{words}worker.")


def tcp_proxy(stat_prefix: str) -> Naming:
    return _token("tcp.", stat_prefix, TCP_PREFIX)


def _in_virtual_host(virtual_host: str, words: str, name: str, tag: str) -> Naming:
    outer = _token("vhost.", virtual_host, VIRTUAL_HOST)
    inner = _token(words, name, tag)
    if outer.tag_extracted_prefix != "vhost.":
        return outer.below(inner.prefix)
    return Naming(outer.prefix + inner.prefix, inner.tags + outer.tags, f"vhost.{inner.tag_extracted_prefix}")


def route(virtual_host: str, stat_prefix: str) -> Naming:
    """A route with a `stat_prefix`."""
    return _in_virtual_host(virtual_host, "route.", stat_prefix, ROUTE)


def virtual_cluster(virtual_host: str, name: str) -> Naming:
    """A virtual cluster of a virtual host."""
    return _in_virtual_host(virtual_host, "vcluster.", name, VIRTUAL_CLUSTER)


def _leading(name: str, tag: str, words: str) -> Naming:
    """A group whose name comes before its words; with a dot in the name Envoy finds no tag."""
    name = sanitized(name)
    if "." in name:
        return Naming(f"{name}.{words}")
    return Naming(f"{name}.{words}", ((tag, name),), words)


def http_local_rate_limit(stat_prefix: str) -> Naming:
    return _leading(stat_prefix, LOCAL_HTTP_RATELIMIT_PREFIX, "http_local_rate_limit.")


def network_local_rate_limit(stat_prefix: str) -> Naming:
    return _token("local_rate_limit.", stat_prefix, LOCAL_NETWORK_RATELIMIT_PREFIX)


def network_ext_authz(stat_prefix: str) -> Naming:
    """What an authorization service said about connections; Envoy takes no tag from it."""
    return Naming(f"ext_authz.{sanitized(stat_prefix)}.")


def network_ratelimit(stat_prefix: str) -> Naming:
    """What a rate limit service said about connections."""
    return _token("ratelimit.", stat_prefix, RATELIMIT_PREFIX)


def connection_limit(stat_prefix: str) -> Naming:
    return _token("connection_limit.", stat_prefix, CONNECTION_LIMIT_PREFIX)


def network_rbac(stat_prefix: str, shadow_rules_stat_prefix: str = "") -> Naming:
    """The network filter's; its shadow rules may count below a prefix of their own."""
    outer = _leading(stat_prefix.removesuffix("."), RBAC_PREFIX, "rbac.")
    shadow = sanitized(shadow_rules_stat_prefix.removesuffix("."))
    return outer.below(f"{shadow}.") if shadow else outer


def http_rbac(stat_prefix: str, rules_stat_prefix: str = "") -> Naming:
    """The RBAC filter of the connection manager `stat_prefix`; a rules prefix may end with its own dot."""
    outer = http_connection_manager(stat_prefix).below("rbac.")
    rules = rules_stat_prefix.removesuffix(".")
    if not rules:
        return outer
    return Naming(f"{outer.prefix}{rules}.", ((RBAC_HTTP_PREFIX, rules), *outer.tags), outer.tag_extracted_prefix)


def http_rbac_policy(stat_prefix: str, rules_stat_prefix: str, policy: str) -> Naming:
    """One policy of the RBAC filter with `track_per_rule_stats`; with a dot in its name Envoy finds no tag."""
    outer = http_rbac(stat_prefix, rules_stat_prefix).below("policy.")
    name = sanitized(policy)
    if "." in name:
        return outer.below(f"{name}.")
    return Naming(f"{outer.prefix}{name}.", ((RBAC_POLICY_NAME, name), *outer.tags), outer.tag_extracted_prefix)


def proxy_protocol_version(version: int) -> Naming:
    return Naming(f"proxy_proto.versions.v{version}.", ((PROXY_PROTOCOL_VERSION, str(version)),), "proxy_proto.")
