"""Why a route was taken or not, in words: the same tests that decide, asked one by one."""

from __future__ import annotations

from typing import Any

from sidecar.config.matcher import (
    BoolMatch,
    DoubleMatcher,
    HeaderMatcher,
    Int64Range,
    ListMatcher,
    MetadataMatcher,
    NullMatch,
    OrMatcher,
    PresentMatch,
    QueryParameterMatcher,
    StringMatcher,
    ValueMatcher,
)
from sidecar.config.route_match import RouteMatch
from sidecar.core.grpc import is_grpc
from sidecar.core.head import RequestHead
from sidecar.core.matching import compile_header, compile_query_parameter, query_parameter
from sidecar.core.metadata_match import compile_metadata, metadata_value
from sidecar.router.path_match import classify, plain_path
from sidecar.router.route_conditions import wants_grpc

_RELATIONS = {
    "exact": "be",
    "prefix": "begin with",
    "suffix": "end with",
    "contains": "contain",
    "safe_regex": "match",
}


def _text(value: bytes) -> str:
    return repr(value.decode("utf-8", "backslashreplace"))


def _value(match: StringMatcher | Int64Range) -> str:
    if isinstance(match, Int64Range):
        return f"be a number from {match.start} to {match.end - 1}"
    case = ", in any case" if match.ignore_case else ""
    return f"{_RELATIONS[match.match_pattern]} {_text(match.value)}{case}"


def _header(matcher: HeaderMatcher, request: RequestHead) -> str:
    value = request.lookup(matcher.name)
    name = matcher.name.decode("latin-1")
    seen = "is missing" if value is None else f"is {_text(value)}"
    if isinstance(matcher.match, bool):
        wanted = "be there" if matcher.match != matcher.invert_match else "be missing"
        return f"header {name} {seen} and must {wanted}"
    must = "must not" if matcher.invert_match else "must"
    return f"header {name} {seen} and {must} {_value(matcher.match)}"


def _parameter(matcher: QueryParameterMatcher, request: RequestHead) -> str:
    value = query_parameter(request.path, matcher.name)
    name = matcher.name.decode("utf-8", "backslashreplace")
    seen = "is missing" if value is None else f"is {_text(value)}"
    if isinstance(matcher.match, bool):
        return f"query parameter {name} {seen} and must {'be there' if matcher.match else 'be missing'}"
    return f"query parameter {name} {seen} and must {_value(matcher.match)}"


def _wanted(value: ValueMatcher) -> str:
    match value:
        case NullMatch():
            return "be null"
        case DoubleMatcher(exact, start, end):
            return f"be a number from {start:g} to below {end:g}" if exact is None else f"be {exact:g}"
        case BoolMatch(wanted):
            return f"be {str(wanted).lower()}"
        case PresentMatch(present):
            return "be there" if present else "match what nothing does (present_match: false)"
        case ListMatcher(one_of):
            return f"be a list of which one element must {_wanted(one_of)}"
        case OrMatcher(alternatives):
            return " or ".join(map(_wanted, alternatives))
        case StringMatcher():
            return _value(value)


def _metadata(matcher: MetadataMatcher, metadata: Any) -> str:
    keys = (matcher.filter, *matcher.path)
    value = metadata_value(metadata, keys)
    seen = "is missing" if value is None else f"is {value!r}"
    must = "must not" if matcher.invert else "must"
    return f"dynamic metadata {'/'.join(keys)} {seen} and {must} {_wanted(matcher.value)}"


def explain_match(
    match: RouteMatch, request: RequestHead, roll: int, stream: Any, ignore_parameters: bool
) -> list[str]:
    """Every condition of the route that the request fails; none when the route matches.

    ``roll`` is the random number for the request, as for the conditions themselves.
    """
    failed = []
    path = plain_path(request.path, ignore_parameters)
    if not path and match.path_specifier != "connect_matcher":
        failed.append("the request has no path, and only connect_matcher takes such requests")
    elif not classify(match, ignore_parameters)[1](request, path):
        if match.path_specifier == "connect_matcher":
            failed.append(f"method is {_text(request.method)} and must be 'CONNECT'")
        else:
            case = "" if match.case_sensitive or match.path_specifier == "safe_regex" else ", in any case"
            failed.append(f"path {_text(path)} does not fit {match.path_specifier} {_text(match.path)}{case}")
    if match.runtime_fraction is not None:
        numerator, denominator = match.runtime_fraction
        if roll % denominator >= numerator:
            failed.append(f"takes {numerator} of {denominator} requests only, and this is not one of them")
    if wants_grpc(match) and not is_grpc(request):
        failed.append("is for gRPC requests only, by their content-type")
    failed += [_header(matcher, request) for matcher in match.headers if not compile_header(matcher)(request)]
    failed += [
        _parameter(matcher, request)
        for matcher in match.query_parameters
        if not compile_query_parameter(matcher)(request)
    ]
    if match.dynamic_metadata:
        metadata = stream.dynamic_metadata
        failed += [_metadata(one, metadata) for one in match.dynamic_metadata if not compile_metadata(one)(metadata)]
    return failed
