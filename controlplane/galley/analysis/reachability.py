"""Rules of a VirtualService that are never used, because earlier ones take all that they match."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controlplane.galley.analysis.mesh import Mesh
from controlplane.galley.analysis.messages import INEFFECTIVE_MATCH, UNREACHABLE_RULE, Message
from controlplane.model.istio.http_match import HTTPMatchRequest, StringMatch
from controlplane.model.resource import Resource


def analyze_reachability(mesh: Mesh) -> Iterator[Message]:
    """IST0130 (rules) and IST0131 (single conditions of rules), for all protocols."""
    for resource in mesh.of_kind("VirtualService"):
        for protocol in ("http", "tls", "tcp"):
            yield from _unused(resource, protocol, getattr(resource.spec, protocol))


def _unused(resource: Resource, protocol: str, routes: Sequence[Any]) -> Iterator[Message]:
    everything = -1  # the rule that takes all that is left
    seen: list[tuple[int, int, Any]] = []
    for index, route in enumerate(routes):
        at = f"spec.{protocol}[{index}]"
        if everything >= 0:
            text = (
                f"is never used, because rule {_name(routes, everything)} before it matches everything: put that last"
            )
            yield Message(UNREACHABLE_RULE, resource.key, text, at)
            continue
        if not route.match:
            everything = index
            continue
        idle = []
        for number, match in enumerate(route.match):
            by = next(((rule, other) for rule, _, other in seen if covers(other, match)), None)
            if by is None:
                seen.append((index, number, match))
                continue
            idle.append(number)
            rule, other = by
            same = "the same condition is" if _same(other, match) else "a wider condition is"
            text = f"is never used, because {same} in rule {_name(routes, rule)} before it: remove it, or put it first"
            yield Message(INEFFECTIVE_MATCH, resource.key, text, f"{at}.match[{number}]")
        if len(idle) == len(route.match):
            text = "is never used, because rules before it take all that it matches: remove it, or put it first"
            yield Message(UNREACHABLE_RULE, resource.key, text, at)
        if any(_is_everything(match) for match in route.match):
            everything = index


def _name(routes: Sequence[Any], index: int) -> str:
    name = getattr(routes[index], "name", None)
    return f'"{name}"' if name else f"#{index}"


def covers(wide: Any, narrow: Any) -> bool:
    """Whether everything that the second condition matches is matched by the first, as far as can be told."""
    if _same(wide, narrow):
        return True
    if not isinstance(wide, HTTPMatchRequest) or not isinstance(narrow, HTTPMatchRequest):
        return False
    if wide.ignore_uri_case != narrow.ignore_uri_case and wide.uri is not None:
        return False
    for name in ("uri", "scheme", "method", "authority"):
        if not _text_covers(getattr(wide, name), getattr(narrow, name)):
            return False
    if wide.port is not None and wide.port != narrow.port:
        return False
    if wide.source_namespace and wide.source_namespace != narrow.source_namespace:
        return False
    if any(narrow.source_labels.get(key) != value for key, value in wide.source_labels.items()):
        return False
    if wide.gateways and not (narrow.gateways and set(narrow.gateways) <= set(wide.gateways)):
        return False
    return (
        _all_cover(wide.headers, narrow.headers)
        and _all_cover(wide.query_params, narrow.query_params)
        and all(_same(match, narrow.without_headers.get(name)) for name, match in wide.without_headers.items())
    )


def _all_cover(wide: Mapping[str, StringMatch], narrow: Mapping[str, StringMatch]) -> bool:
    return all(name in narrow and _text_covers(match, narrow[name]) for name, match in wide.items())


def _text_covers(wide: StringMatch | None, narrow: StringMatch | None) -> bool:
    if wide is None or wide == narrow or wide == StringMatch():
        return wide is None or narrow is not None
    if narrow is None or wide.prefix is None:
        return False
    start = narrow.exact if narrow.exact is not None else narrow.prefix
    return start is not None and start.startswith(wide.prefix)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, HTTPMatchRequest) and isinstance(other, HTTPMatchRequest):
        unnamed = {"name": None, "stat_prefix": None}
        return one.model_copy(update=unnamed) == other.model_copy(update=unnamed)
    return bool(one == other)


def _is_everything(match: Any) -> bool:
    if not isinstance(match, HTTPMatchRequest):
        return False
    rest = match.model_copy(update={"name": None, "stat_prefix": None, "ignore_uri_case": None, "uri": None})
    return rest == HTTPMatchRequest() and (match.uri is None or match.uri.prefix == "/")
