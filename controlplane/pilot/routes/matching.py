"""`HTTPMatchRequest` becomes Envoy's `RouteMatch`, and what of it is decided before there is a request.

Source: Istio's reference, "Virtual Service", HTTPMatchRequest and StringMatch.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import re2
from envoy.config.route.v3 import route_components_pb2 as components
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from controlplane.model.istio.http_match import CLAIM
from controlplane.model.resource import Resource
from controlplane.pilot.scope import Scope
from controlplane.pilot.security.matchers import claim_matching, string_value, text

MESH = "mesh"  # the reserved name of all sidecars among a virtual service's gateways


def proxy_meets(scope: Scope, owner: Resource, match: Any, port: int, gateways: Collection[str]) -> bool:
    """Whether a match condition can hold at a proxy: what `gateways`, `sourceLabels`, `sourceNamespace` and `port` say.

    ``owner`` is the condition's resource, ``gateways`` are the names that the routes are made for (`mesh` for a sidecar,
    `NAMESPACE/NAME` for gateways). A condition with gateways of its own is not asked for its source, as in Istio.
    """
    if match.port and match.port != port:
        return False
    if match.gateways:
        return any(_qualified(gateway, owner.namespace) in gateways for gateway in match.gateways)
    proxy = scope.proxy
    if any(proxy.labels.get(name) != value for name, value in match.source_labels.items()):
        return False
    return not match.source_namespace or bool(match.source_namespace == proxy.namespace)


def _qualified(gateway: str, namespace: str) -> str:
    """A gateway's name with its namespace, which a resource need not write of its own."""
    space, slash, name = gateway.rpartition("/")
    if gateway == MESH or (slash and space != "."):
        return gateway
    return f"{namespace}/{name}"


def route_match(match: Any) -> Any:
    """The `RouteMatch` of one condition; of None, one that every request meets."""
    if match is None:
        return components.RouteMatch(prefix="/")
    made = components.RouteMatch(**_path(match.uri))
    if match.ignore_uri_case and match.uri is not None and match.uri.regex is None:
        made.case_sensitive.value = False
    for headers, without in ((match.headers, False), (match.without_headers, True)):
        for name, value in sorted(headers.items()):
            if name.startswith(CLAIM):
                made.dynamic_metadata.append(_claim(name, value, without=without))
            else:
                made.headers.append(_header(name, value, without=without))
    for name, value in ((":scheme", match.scheme), (":method", match.method), (":authority", match.authority)):
        if value is not None:
            made.headers.append(_header(name, value))
    for name, value in sorted(match.query_params.items()):
        made.query_parameters.append(_query_parameter(name, value))
    return made


def matches_everything(match: Any) -> bool:
    """Whether no request fails this `RouteMatch`, so that what comes after its route is never reached."""
    if match.headers or match.query_parameters or match.dynamic_metadata or match.HasField("runtime_fraction"):
        return False
    kind = match.WhichOneof("path_specifier")
    return (kind == "prefix" and match.prefix in ("", "/")) or (
        kind == "safe_regex" and match.safe_regex.regex in (".*", "/.*")
    )


def string_matcher(match: Any) -> Any:
    """The `StringMatcher` of a `StringMatch`."""
    if match.exact is not None:
        return string_pb2.StringMatcher(exact=match.exact)
    if match.prefix is not None:
        return string_pb2.StringMatcher(prefix=match.prefix)
    return string_pb2.StringMatcher(safe_regex=regex(match.regex))


def regex(pattern: str) -> Any:
    """A `RegexMatcher`; it has to match the whole value."""
    return regex_pb2.RegexMatcher(regex=pattern)


def _path(uri: Any) -> dict[str, Any]:
    if uri is None:
        return {"prefix": "/"}
    if uri.exact is not None:
        return {"path": uri.exact}
    if uri.prefix is not None:
        return {"prefix": uri.prefix}
    if uri.regex is not None:
        return {"safe_regex": regex(uri.regex)}
    return {"prefix": "/"}


def _is_any(match: Any) -> bool:
    """Whether a header need only be there: no value is named, or one that is every value's prefix or expression."""
    return bool(match.exact is None and match.prefix in (None, "") and match.regex in (None, "*", ".*"))


def _header(name: str, match: Any, *, without: bool = False) -> Any:
    name = name if name.startswith(":") else name.lower()
    if _is_any(match):
        return components.HeaderMatcher(name=name, present_match=True, invert_match=without)
    made = components.HeaderMatcher(name=name, string_match=string_matcher(match), invert_match=without)
    # Envoy takes a condition on the value of an absent header for failed, inverted or not, unless absent is empty.
    made.treat_missing_header_as_empty = without and not _holds_for_nothing(match)
    return made


def _claim(name: str, match: Any, *, without: bool) -> Any:
    """A condition on a claim of the request's token, which a RequestAuthentication of the gateway has read.

    Source: https://istio.io/latest/docs/tasks/security/authentication/jwt-route/
    """
    rest = name.removeprefix(CLAIM)
    names = rest[1:-1].split("][") if rest.startswith("[") else rest.removeprefix(".").split(".")
    value = text("*") if _is_any(match) else string_matcher(match)
    made = claim_matching(names, string_value(value))
    made.invert = without
    return made


def _holds_for_nothing(match: Any) -> bool:
    if match.regex is not None:
        return bool(re2.fullmatch(match.regex, ""))
    return bool(match.exact == "")


def _query_parameter(name: str, match: Any) -> Any:
    if _is_any(match):
        return components.QueryParameterMatcher(name=name, present_match=True)
    return components.QueryParameterMatcher(name=name, string_match=string_matcher(match))
