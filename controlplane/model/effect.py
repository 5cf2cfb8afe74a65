"""What resources may say that nothing acts upon: refused where that can be mistaken for working, told where it must be kept.

Istio has more than this control plane does. A field that is not implemented is refused by its path. Resources that are of
use before anything acts upon them (policies that are checked and analysed, settings that Istio writes by itself) are kept,
and whoever writes them is told: by the API as a warning, by `mizzen validate`, and in the status.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from controlplane.model.causes import Cause, Reason, joined
from controlplane.model.istio.envoy_filter import EnvoyFilter, Patch
from controlplane.model.istio.http_match import HTTPMatchRequest
from controlplane.model.istio.policy_selection import TargetedPolicy
from controlplane.model.istio.proxy_config import ProxyConfig
from controlplane.model.istio.telemetry import Telemetry
from controlplane.model.istio.traffic_policy import TrafficPolicy
from controlplane.model.istio.workload_group import ReadinessProbe
from controlplane.model.mesh_config import DefaultProviders, MeshConfig, ProxyDefaults
from controlplane.model.mesh_providers import MeshExtensionProvider
from controlplane.model.model_parsing import models
from controlplane.model.resource import Model

_ATTACHED = "is not implemented, because there are no waypoints and no Gateway API here: use a selector"
_BY_HAND = "has no effect on proxies, which have it from where they are started: give it there"
_UNUSED = "has no effect here"

NOT_IMPLEMENTED: Mapping[type[Model], Mapping[str, str]] = {
    HTTPMatchRequest: {
        "stat_prefix": "is not implemented: remove it, and name the route to tell it apart in access logs"
    },
    TrafficPolicy: {"tunnel": "is not implemented: remove it"},
    ReadinessProbe: {"exec": "is not implemented, because a sidecar runs no commands: use httpGet, tcpSocket or grpc"},
    TargetedPolicy: {"target_ref": _ATTACHED, "target_refs": _ATTACHED},
    EnvoyFilter: {"target_refs": _ATTACHED},
    Patch: {"filter_class": "is not implemented: use INSERT_BEFORE or INSERT_AFTER with the name of a filter"},
    MeshConfig: {
        "inbound_traffic_policy": "is not implemented: traffic goes to the address that it was for",
        "discovery_selectors": "is not implemented: all namespaces are in the mesh",
        "tls_defaults": "is not implemented: remove it",
    },
}
"""Fields that are refused, by the model that has them, and why."""

WITHOUT_EFFECT: Mapping[type[Model], Mapping[str, str]] = {
    Telemetry: {
        "tracing": "has no effect yet: give proxies tracing in their bootstrap",
        "metrics": "has no effect yet: proxies have Envoy's own statistics",
    },
    ProxyConfig: {"concurrency": _BY_HAND, "environment_variables": _BY_HAND, "image": _BY_HAND},
    MeshConfig: {
        "enable_tracing": _UNUSED,
        "enable_prometheus_merge": _UNUSED,
    },
    DefaultProviders: {"tracing": _UNUSED, "metrics": _UNUSED},
    ProxyDefaults: {name: _BY_HAND for name in ProxyDefaults.model_fields if name != "gateway_topology"},
    MeshExtensionProvider: dict.fromkeys(
        (
            "zipkin", "opentelemetry", "envoy_http_als", "envoy_tcp_als", "envoy_otel_als",
        ),
        "has no effect yet: nothing uses it",
    ),
}  # fmt: skip
"""What is kept though nothing acts upon it: by the model, its fields (all of it: "")."""


def not_implemented(spec: Model, path: str) -> Iterator[Cause]:
    """Causes for the fields of a model, which stands at ``path``, that are refused."""
    for at, why in _found(spec, path, refused=True):
        yield Cause(at, why, Reason.NOT_SUPPORTED)


def without_effect(spec: Model, path: str) -> Iterator[Cause]:
    """What a model, which stands at ``path``, says that nothing acts upon."""
    for at, why in _found(spec, path, refused=False):
        yield Cause(at, why)


def _found(spec: Model, path: str, *, refused: bool) -> Iterator[tuple[str, str]]:
    for at, model in models(spec, path):
        for name, why in _fields(type(model), refused):
            if not name:
                yield at, why
            elif _says_something(model, name):
                yield joined(at, type(model).model_fields[name].alias or name), why


@cache
def _fields(model: type[Model], refused: bool) -> tuple[tuple[str, str], ...]:
    """The fields of a model, with those that it has inherited, that are in one of the tables."""
    table = NOT_IMPLEMENTED if refused else WITHOUT_EFFECT
    return tuple(item for each in model.__mro__ for item in table.get(each, {}).items())


def _says_something(model: Model, name: str) -> bool:
    value: Any = getattr(model, name)
    return name in model.model_fields_set and value != type(model).model_fields[name].get_default(
        call_default_factory=True
    )
