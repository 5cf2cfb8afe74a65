"""Envoy's own constraints on its configuration, enforced by one walk over any message.

The constraints are the rules that the protos carry (see `rules.py`). Those of a message type are compiled when the
first message of the type is met. Payloads of google.protobuf.Any are walked too, as are those of TypedStruct.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from envoy.annotations import deprecation_pb2
from google.protobuf.message import Message
from validate import validate_pb2

from sidecar.config.extensions import TYPED_STRUCTS, UnknownType, type_name_of
from sidecar.config.left_out import WITHOUT_MESSAGES
from sidecar.config.packed import unpack
from sidecar.config.problems import Where, key_label, path_of
from sidecar.config.rules import (
    Check,
    bytes_checks,
    count_checks,
    duration_checks,
    duration_in_range,
    enum_checks,
    no_repeats,
    number_checks,
    string_checks,
)

Refuse = Callable[[str, str, str], None]
"""Called with the path of a field, what is wrong with it, and what to do."""


_LIFTED = frozenset(
    {
        "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig.common_config",
        "envoy.extensions.filters.http.jwt_authn.v3.JwtClaimToHeader.claim_name",
        "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig.trust_domains",
        "envoy.type.v3.TokenBucket.max_tokens",
    }
)
"""Fields whose rules Envoy 1.40 has lifted, and whose protos in xds-protos still carry them."""


_GONE = "was deprecated, and Envoy no longer accepts it"


class _Field(NamedTuple):
    """What is asked of a field when it is set. `whole` and `keys` are for lists and maps, `each` for their values."""

    name: str
    repeated: bool
    map: bool
    whole: tuple[Check, ...]
    keys: tuple[Check, ...]
    each: tuple[Check, ...]
    descend: bool


class _Rules(NamedTuple):
    """What is asked of a message type. `unset` are the fields that may not be absent, with the words to say so."""

    fields: dict[int, _Field]
    unset: tuple[tuple[int, str, str], ...]
    choices: tuple[tuple[str, str], ...]


def check(message: Message, refuse: Refuse, path: str = "") -> None:
    """Call `refuse` for every constraint that `message`, or a message inside it, does not meet, and for every field that its
    type has not here: one of a later version of the API, which a serialised message may have.
    """
    where = (None, f".{path}") if path else None
    _refuse_unknown(message, refuse, where)
    _walk(message, refuse, where)


def _walk(message: Any, refuse: Refuse, where: Where) -> None:
    rules = _rules.get(type(message)) or _rules_of(message)
    fields = rules.fields
    present = message.ListFields()
    for descriptor, value in present:
        field = fields.get(descriptor.number)
        if field is None:
            continue
        place = (where, field.name)
        if not field.repeated:
            for each in field.each:
                if (problem := each(value)) is not None:
                    refuse(path_of(place), problem, "")
                    break
            if field.descend:
                _descend(value, refuse, place)
            continue
        for whole in field.whole:
            if (problem := whole(value)) is not None:
                refuse(path_of(place), problem, "")
        for index, item in enumerate(sorted(value.items()) if field.map else value):
            if field.map:
                key, item = item
                inside = (place, key_label(key))
                for each in field.keys:
                    if (problem := each(key)) is not None:
                        refuse(path_of(inside), f"its key {problem}", "")
            else:
                inside = (place, f"[{index}]")
            for each in field.each:
                if (problem := each(item)) is not None:
                    refuse(path_of(inside), problem, "")
                    break
            if field.descend:
                _descend(item, refuse, inside)
    if rules.unset:
        numbers = {descriptor.number for descriptor, _ in present}
        for number, name, problem in rules.unset:
            if number not in numbers:
                refuse(path_of((where, name)), problem, "set it")
    for oneof, names in rules.choices:
        if message.WhichOneof(oneof) is None:
            refuse(path_of(where), f"must have one of {names}", "set one of them")


def _descend(message: Any, refuse: Refuse, where: Where) -> None:
    if message.DESCRIPTOR.full_name != "google.protobuf.Any":
        _walk(message, refuse, where)
        return
    type_name = type_name_of(message.type_url)
    if type_name in WITHOUT_MESSAGES:
        return
    try:
        inside = unpack(message)
    except UnknownType as error:
        refuse(path_of((where, ".@type")), str(error), error.what_to_do)
    except ValueError as error:
        refuse(path_of((where, ".value") if type_name in TYPED_STRUCTS else where), str(error), "")
    else:
        converted = type_name in TYPED_STRUCTS and inside.DESCRIPTOR.full_name not in TYPED_STRUCTS
        _refuse_unknown(inside, refuse, where)
        _walk(inside, refuse, (where, ".value") if converted else where)


def _refuse_unknown(message: Message, refuse: Refuse, where: Where) -> None:
    serialized = message.SerializePartialToString()
    message.DiscardUnknownFields()  # quicker than to look for them, and most have none
    if len(message.SerializePartialToString()) == len(serialized):
        return
    from sidecar.config.unknown_fields import unknown_fields  # only for what is wrong

    for path, number, type_name in unknown_fields(type(message).FromString(serialized)):
        place = f"{path_of(where)}.{path}".strip(".")
        refuse(place, f"has a field {number} that {type_name} has not here", "leave out what is newer than xds-protos")


_rules: dict[type[Message], _Rules] = {}


def _rules_of(message: Message) -> _Rules:
    rules = _rules[type(message)] = _compile(message.DESCRIPTOR)
    return rules


def _compile(descriptor: Any) -> _Rules:
    options = descriptor.GetOptions()
    if options.Extensions[validate_pb2.disabled] or options.Extensions[validate_pb2.ignored]:
        return _Rules({}, (), ())
    fields: dict[int, _Field] = {}
    unset: list[tuple[int, str, str]] = []
    for field in descriptor.fields:
        rules = validate_pb2.FieldRules()
        if field.full_name not in _LIFTED:
            rules = field.GetOptions().Extensions[validate_pb2.rules]
        compiled = _compile_field(field, rules)
        if compiled.whole or compiled.keys or compiled.each or compiled.descend:
            fields[field.number] = compiled
        problem = _problem_when_unset(field, rules)
        if problem is not None:
            unset.append((field.number, compiled.name, problem))
    choices = tuple(
        (oneof.name, ", ".join(field.name for field in oneof.fields))
        for oneof in descriptor.oneofs
        if oneof.GetOptions().Extensions[validate_pb2.required]
    )
    return _Rules(fields, tuple(unset), choices)


def _compile_field(field: Any, rules: Any) -> _Field:
    name = f".{field.name}"
    disallowed = _disallowed(field)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[part] for part in ("key", "value"))
        pairs = rules.map
        whole = count_checks(pairs.min_pairs, pairs.max_pairs if pairs.HasField("max_pairs") else None, "entry")
        keys, each = _checks(key, pairs.keys), _checks(value, pairs.values)
        return _Field(name, True, True, (*disallowed, *whole), tuple(keys), tuple(each), _descends(value, pairs.values))
    if field.is_repeated:
        items = rules.repeated
        whole = count_checks(items.min_items, items.max_items if items.HasField("max_items") else None, "item")
        if items.unique:
            whole.append(no_repeats)
        each = _checks(field, items.items)
        return _Field(name, True, False, (*disallowed, *whole), (), tuple(each), _descends(field, items.items))
    return _Field(name, False, False, (), (), (*disallowed, *_checks(field, rules)), _descends(field, rules))


def _descends(field: Any, rules: Any) -> bool:
    """Whether the walk goes on into the field's message: not into those of protobuf itself, which carry no rules."""
    if field.message_type is None or rules.message.skip:
        return False
    name: str = field.message_type.full_name
    return name == "google.protobuf.Any" or not name.startswith("google.protobuf.")


def _checks(field: Any, rules: Any) -> list[Check]:
    """The checks of one value, whatever the kind of its rules."""
    kind = rules.WhichOneof("type")
    is_duration = field.message_type is not None and field.message_type.full_name == "google.protobuf.Duration"
    checks: list[Check] = [duration_in_range] if is_duration else []
    if kind is None or kind in ("repeated", "map"):
        return checks
    own = getattr(rules, kind)
    if kind == "string":
        made = string_checks(own)
    elif kind == "bytes":
        made = bytes_checks(own)
    elif kind == "enum":
        made = enum_checks(own, field.enum_type)
    elif kind == "bool":
        made = [lambda value: None if value == own.const else f"must be {str(own.const).lower()}"] * own.HasField(
            "const"
        )
    elif kind == "duration":
        made = duration_checks(own)
    elif kind == "any":
        made = _any_checks(own)
    elif kind == "timestamp":
        made = []
    else:
        made = number_checks(own)
    if getattr(own, "ignore_empty", False):
        made = [lambda value, made=one: made(value) if value else None for one in made]  # type: ignore[misc]
    if field.message_type is not None and kind not in ("duration", "any", "timestamp"):
        made = [lambda wrapper, made=one: made(wrapper.value) for one in made]  # type: ignore[misc]
    return checks + made


def _any_checks(rules: Any) -> list[Check]:
    allowed, forbidden = frozenset(getattr(rules, "in")), frozenset(rules.not_in)
    checks: list[Check] = []
    if allowed:
        words = f"must hold one of {', '.join(sorted(allowed))}"
        checks.append(lambda value: None if value.type_url in allowed else words)
    if forbidden:
        checks.append(lambda value: f"must not hold {value.type_url}" if value.type_url in forbidden else None)
    return checks


def _disallowed(field: Any) -> tuple[Check, ...]:
    """Fields and enum values that were deprecated and that Envoy no longer accepts."""
    if field.GetOptions().Extensions[deprecation_pb2.disallowed_by_default]:
        return (lambda value: _GONE,)
    return () if field.is_repeated else _gone_values(field)


def _gone_values(field: Any) -> tuple[Check, ...]:
    if field.enum_type is None:
        return ()
    option = deprecation_pb2.disallowed_by_default_enum
    gone = {value.number: value.name for value in field.enum_type.values if value.GetOptions().Extensions[option]}
    return (lambda value: f"{gone[value]} {_GONE}" if value in gone else None,) if gone else ()


def _problem_when_unset(field: Any, rules: Any) -> str | None:
    """What is wrong when the field is absent: it is required, or its type's default does not meet the rules."""
    kind = rules.WhichOneof("type")
    required = kind in ("any", "duration", "timestamp") and getattr(rules, kind).required
    if field.containing_oneof is not None:
        return None
    if rules.message.required or required:
        return "is required"
    if field.is_repeated:
        own = getattr(rules, kind) if kind else None
        if own is None or own.ignore_empty:
            return None
        least = own.min_items if kind == "repeated" else own.min_pairs
        return next((problem for one in count_checks(least, None, "item") if (problem := one(()))), None)
    if field.has_presence or field.message_type is not None:
        return None
    checks = (*_gone_values(field), *_checks(field, rules))
    problem = next((problem for one in checks if (problem := one(field.default_value))), None)
    return "is required" if problem == "must not be empty" else problem
