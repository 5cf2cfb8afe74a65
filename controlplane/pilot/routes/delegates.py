"""Rules of a virtual service that are delegated to another one: the rules of both, merged.

Source: Istio's reference, "Virtual Service", Delegate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from controlplane.model.resource import Resource
from controlplane.pilot.scope import Scope

# What the delegating rule says for all rules of its delegate that say nothing of their own.
_INHERITED = (
    "rewrite",
    "timeout",
    "retries",
    "fault",
    "mirror",
    "mirror_percent",
    "mirror_percentage",
    "mirrors",
    "cors_policy",
    "headers",
)
_MAPPINGS = ("headers", "without_headers", "query_params", "source_labels")


class Rules(NamedTuple):
    """The HTTP rules of a virtual service, each with the namespace in which its names hold."""

    rules: tuple[tuple[str, Any], ...]
    delegates: tuple[Resource, ...] = ()


def effective_rules(scope: Scope, root: Resource) -> Rules:
    """The HTTP rules of a virtual service, with those of its delegates where it has delegated.

    A delegate that is not there, or that is not exported to the namespace of ``root``, has no rules. Delegates of
    delegates are not followed.
    """
    rules: list[tuple[str, Any]] = []
    delegates: list[Resource] = []
    for rule in root.spec.http:
        if rule.delegate is None:
            rules.append((root.namespace, rule))
            continue
        delegate = scope.virtual_service(rule.delegate.namespace or root.namespace, rule.delegate.name, root.namespace)
        if delegate is None:
            continue
        delegates.append(delegate)
        merged = (merge_rules(rule, inner) for inner in delegate.spec.http if inner.delegate is None)
        rules.extend((delegate.namespace, each) for each in merged if each is not None)
    return Rules(tuple(rules), tuple(delegates))


def merge_rules(outer: Any, inner: Any) -> Any:
    """One rule of a delegate as the delegating rule lets it be; None if no request can meet the conditions of both."""
    matches = _merge_conditions(outer.match, inner.match)
    if matches is None:
        return None
    update: dict[str, Any] = {"match": matches, "delegate": None}
    update["name"] = "-".join(name for name in (outer.name, inner.name) if name) or None
    for name in _INHERITED:
        if not getattr(inner, name) and getattr(outer, name):
            update[name] = getattr(outer, name)
    return inner.model_copy(update=update)


def _merge_conditions(outer: tuple[Any, ...], inner: tuple[Any, ...]) -> tuple[Any, ...] | None:
    if not outer or not inner:
        return tuple(outer or inner)
    merged = []
    for narrow in inner:
        mergeable = [_merge_condition(wide, narrow) for wide in outer if not _conflict(wide, narrow)]
        if not mergeable:
            return None  # not within any condition of the delegating rule: the whole rule takes no effect
        merged.extend(mergeable)
    return tuple(merged)


def _merge_condition(wide: Any, narrow: Any) -> Any:
    update: dict[str, Any] = {}
    update["name"] = "-".join(name for name in (wide.name, narrow.name) if name) or None
    for field in type(narrow).model_fields:
        if field == "name":
            continue
        if field in _MAPPINGS:
            both: Mapping[str, Any] = {**getattr(wide, field), **getattr(narrow, field)}
            update[field] = both
        elif not getattr(narrow, field) and getattr(wide, field):
            update[field] = getattr(wide, field)
    return narrow.model_copy(update=update)


def _conflict(wide: Any, narrow: Any) -> bool:
    """Whether ``narrow`` is not a part of ``wide``, or cannot be seen to be."""
    if wide.port and narrow.port and wide.port != narrow.port:
        return True
    if wide.source_namespace and narrow.source_namespace and wide.source_namespace != narrow.source_namespace:
        return True
    if wide.gateways and narrow.gateways and not set(narrow.gateways) <= set(wide.gateways):
        return True
    if narrow.uri is not None and wide.uri is not None and bool(wide.ignore_uri_case) != bool(narrow.ignore_uri_case):
        return True
    if any(
        _texts_conflict(getattr(wide, name), getattr(narrow, name)) for name in ("uri", "scheme", "method", "authority")
    ):
        return True
    for name in _MAPPINGS:
        ours, theirs = getattr(wide, name), getattr(narrow, name)
        for key in ours.keys() & theirs.keys():
            if name == "source_labels":
                if ours[key] != theirs[key]:
                    return True
            elif _texts_conflict(ours[key], theirs[key]):
                return True
    return False


def _texts_conflict(wide: Any, narrow: Any) -> bool:
    if wide is None or narrow is None:
        return False
    if wide.regex is not None or narrow.regex is not None:
        return bool(wide != narrow)  # of two expressions nobody can say whether one contains the other
    if wide.exact is not None:
        return bool(wide.exact != narrow.exact)
    inside = narrow.exact if narrow.exact is not None else narrow.prefix
    return not (inside or "").startswith(wide.prefix or "")
