"""Which fields make a difference: found by leaving out or changing one at a time, in messages that `implemented` makes.

A field that is read, and whose absence changes neither what is built nor a warning nor a refusal, is ignored silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from sidecar.config.bootstrap import parse_bootstrap
from sidecar.config.constraints import check
from sidecar.config.extensions import message_class, type_name_of
from sidecar.config.fields import Context, Node
from sidecar.config.problems import ConfigurationError
from tests.docs.implemented import Found, fill

Field = tuple[str, str]
"""The full name of a message, and that of its field."""

_ANY = "google.protobuf.Any"
_BOOL = "google.protobuf.BoolValue"
_ATTEMPTS = 300
_HTTP_FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault"
_RATE_LIMIT = "envoy.extensions.filters.http.ratelimit.v3.RateLimit"
_ADMISSION = "envoy.extensions.filters.http.admission_control.v3.AdmissionControl"
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


@dataclass
class Effects:
    """`tried`: how often each field was left out without a difference; `effective`: those that made one."""

    tried: Counter[Field] = field(default_factory=Counter)
    effective: set[Field] = field(default_factory=set)

    @property
    def silent(self) -> set[Field]:
        """Those that never made a difference."""
        return set(self.tried) - self.effective


def look_for_effects(runs: int) -> Effects:
    """Leave out each field of the messages of ``runs`` runs, until it makes a difference."""
    found, effects = Found(), Effects()
    for seed in range(-2, runs):
        message = _rare() if seed < 0 else fill(seed, found)
        if seed % 3:
            _set_runtime(message, 5 if seed % 3 == 1 else True)
        whole = _outcome(message)
        for key, make in _without_one(message):
            if key not in effects.effective and effects.tried[key] < _ATTEMPTS:
                if make is not None and _outcome(make()) != whole:
                    effects.effective.add(key)
                else:
                    effects.tried[key] += 1
    return effects


def _rare() -> Any:
    """What chance hardly ever makes: fields that others beside them switch off."""
    cluster = {"name": "a", "common_lb_config": {"zone_aware_lb_config": {"fail_traffic_on_panic": True}}}
    clusters = [{**cluster, "load_assignment": {"cluster_name": "a"}}]
    bootstrap = {"static_resources": {"listeners": [_filters()], "clusters": clusters}}
    return ParseDict(bootstrap, message_class("envoy.config.bootstrap.v3.Bootstrap")())


def _filters() -> Any:
    """Faults whose every value stands in the runtime; filters whose fields hold where others are not set."""
    share = {"numerator": 50}
    values = ("abort_grpc_status", "abort_percent", "delay_duration", "delay_percent", "max_active_faults",
              "response_rate_limit_percent")  # fmt: skip
    for known in (_HTTP_FAULT, _RATE_LIMIT, _ADMISSION, _MANAGER):
        message_class(known)
    fault = {
        "@type": f"type.googleapis.com/{_HTTP_FAULT}",
        "delay": {"fixed_delay": "1s", "percentage": share},
        "abort": {"grpc_status": 3, "percentage": share},
        "response_rate_limit": {"fixed_limit": {"limit_kbps": 1}, "percentage": share},
        **{f"{name}_runtime": "a" for name in values},
    }
    limit = {
        "@type": f"type.googleapis.com/{_RATE_LIMIT}",
        "domain": "a",
        "failure_mode_deny": True,
        "rate_limit_service": {
            "grpc_service": {"envoy_grpc": {"cluster_name": "a"}}, "transport_api_version": "V3",
        },
    }  # fmt: skip
    admission = {
        "@type": f"type.googleapis.com/{_ADMISSION}",
        "enabled": {"default_value": False, "runtime_key": "b"},
        "success_criteria": {"http_criteria": {}},
    }
    filters = [{"name": name, "typed_config": one} for name, one in zip("abc", (fault, limit, admission), strict=True)]
    manager = {"@type": f"type.googleapis.com/{_MANAGER}", "stat_prefix": "s", "http_filters": filters}
    return {"name": "l", "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}


def _set_runtime(message: Any, value: Any) -> None:
    """A value for the key that every field with a runtime key names."""
    message.ClearField("layered_runtime")
    layer = message.layered_runtime.layers.add(name="static")
    layer.static_layer["a"] = value


def _outcome(message: Message) -> tuple[Any, list[Any], list[str]]:
    context = Context()
    check(message, context.refuse)
    built = None
    with suppress(ConfigurationError), context:
        built = parse_bootstrap(Node(message, "", context))
    return built, context.problems, context.warnings


def _without_one(message: Any) -> Iterator[tuple[Field, Callable[[], Message] | None]]:
    """Each field that is set in a message, and in those inside it, with what makes the message without it; None where that
    would be the same message.
    """
    kind = message.DESCRIPTOR.full_name
    if kind == _ANY:
        if message.type_url:
            for key, make in _without_one(message_class(type_name_of(message.type_url)).FromString(message.value)):
                yield key, make and partial(_packed, make)
        return
    for descriptor, value in message.ListFields():
        name = descriptor.name
        if not kind.startswith("google.protobuf."):
            yield (kind, name), partial(_cleared, message, name)
            yield (kind, name), partial(_turned, message, name) if _turns(value) else None
        for place, inside in _messages_in(descriptor, value):
            for key, make in _without_one(inside):
                yield key, make and partial(_replaced, message, name, place, make)


def _messages_in(descriptor: Any, value: Any) -> Iterable[tuple[Any, Any]]:
    """The messages in a field, each with its index or its key; None for the only one."""
    kind = descriptor.message_type
    if kind is None:
        return ()
    if kind.GetOptions().map_entry:
        return value.items() if kind.fields_by_name["value"].message_type is not None else ()
    return enumerate(value) if descriptor.is_repeated else ((None, value),)


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _cleared(message: Any, name: str) -> Any:
    copy = _copy(message)
    copy.ClearField(name)
    return copy


def _turns(value: Any) -> bool:
    """Whether there is an opposite."""
    return isinstance(value, bool) or getattr(getattr(value, "DESCRIPTOR", None), "full_name", "") == _BOOL


def _turned(message: Any, name: str) -> Any:
    """With the opposite of a boolean, for what is left out may be true."""
    copy = _copy(message)
    value = getattr(copy, name)
    if isinstance(value, bool):
        setattr(copy, name, not value)
    else:
        value.value = not value.value
    return copy


def _replaced(message: Any, name: str, place: Any, make: Callable[[], Message]) -> Any:
    copy = _copy(message)
    target = getattr(copy, name)
    (target if place is None else target[place]).CopyFrom(make())
    return copy


def _packed(make: Callable[[], Message]) -> Any:
    packed: Any = message_class(_ANY)()
    packed.Pack(make())
    return packed
