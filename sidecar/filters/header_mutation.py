"""The header mutation filter: headers and query parameters changed in the order in which the configuration has them.

Source: Envoy's ``extensions.filters.http.header_mutation.v3.HeaderMutation``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from sidecar.config.filters.header_mutation import (
    HeaderChange,
    HeaderMutation,
    QueryParameterMutation,
)
from sidecar.core.explanation import PASSES, Step
from sidecar.core.head import RequestHead
from sidecar.core.header_changes import compile_header_changes
from sidecar.core.http_filter import FilterStream
from sidecar.filters.context import CompileFormat, FilterContext, MutateHead, NamedFilter

MutateQuery = Callable[[RequestHead, Any], None]
Parameters = list[tuple[bytes, bytes]]


def _compile_changes(changes: Iterable[HeaderChange], context: FilterContext) -> tuple[MutateHead, ...]:
    return compile_header_changes(changes, lambda option: context.header_mutation((option,)))


def _quoted(text: bytes) -> bytes:
    return quote_from_bytes(text, safe="").encode()


def _compile_query(mutations: Sequence[QueryParameterMutation], compile_format: CompileFormat) -> MutateQuery | None:
    """All changes of the query as one. It is written anew, sorted by its keys; what is not changed keeps its text."""
    if not mutations:
        return None
    steps = tuple(
        (one.key.encode(), None if one.value is None else compile_format(one.value), one.action) for one in mutations
    )

    def mutate(request: RequestHead, stream: Any) -> None:
        path, _, query = request.path.partition(b"?")
        parameters: Parameters = []
        for pair in query.split(b"&") if query else ():
            key, _, value = pair.partition(b"=")
            parameters.append((key, value))
        for name, value_of, action in steps:
            added = None if value_of is None else _quoted(value_of(stream))
            parameters = _change_parameter(parameters, name, added, action)
        parameters.sort(key=lambda pair: unquote_to_bytes(pair[0]))
        text = b"&".join(key + b"=" + value for key, value in parameters)
        request.path = path + b"?" + text if text else path

    return mutate


def _change_parameter(parameters: Parameters, key: bytes, value: bytes | None, action: str) -> Parameters:
    others = [pair for pair in parameters if unquote_to_bytes(pair[0]) != key]
    present = len(others) != len(parameters)
    if value is None:
        return others
    added = (_quoted(key), value)
    match action:
        case "ADD_IF_ABSENT":
            return parameters if present else [*parameters, added]
        case "OVERWRITE_IF_EXISTS":
            return [*others, added] if present else parameters
        case "OVERWRITE_IF_EXISTS_OR_ADD":
            return [*others, added]
        case _:
            return [*parameters, added]


class HeaderMutationFilter(NamedFilter):
    """The changes of one filter, or of a filter and the routes' levels one after another."""

    __slots__ = ("_request", "_response")

    def __init__(self, name: str, levels: Sequence[HeaderMutation], context: FilterContext) -> None:
        NamedFilter.__init__(self, name)
        request: list[Callable[[Any, Any], None]] = []
        response: list[MutateHead] = []
        for level in levels:
            request += _compile_changes(level.request_mutations, context)
            query = _compile_query(level.query_parameter_mutations, context.compile_format)
            if query is not None:
                request.append(query)
            response += _compile_changes(level.response_mutations, context)
        self._request = tuple(request)
        self._response = tuple(response)

    def rehearse(self, stream: FilterStream) -> Step | None:
        """See ``HttpFilter``: changing a head that goes nowhere does no harm."""
        if not self._request:
            return None
        self.on_request(stream, True)
        return Step("http filter", self.name, PASSES, f"http filter {self.name}: passes, with changed headers")

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Change the request's headers and query."""
        request = stream.request
        for change in self._request:
            change(request, stream)
        return None


class ResponseHeaderMutationFilter(HeaderMutationFilter):
    """With changes of the response too."""

    __slots__ = ()

    def on_response(self, stream: FilterStream, end: bool) -> bool | None:
        """Change the response's headers."""
        response = stream.response
        if response is not None:
            for change in self._response:
                change(response, stream)
        return None


def make_header_mutation(levels: Sequence[HeaderMutation], name: str, context: FilterContext) -> HeaderMutationFilter:
    """A filter that applies ``levels`` in this order."""
    responds = any(level.response_mutations for level in levels)
    return (ResponseHeaderMutationFilter if responds else HeaderMutationFilter)(name, levels, context)


def make_route_header_mutation(
    base: HeaderMutation, levels: Sequence[HeaderMutation], name: str, context: FilterContext
) -> HeaderMutationFilter:
    """The filter's own changes, then those of the levels: the route's last if the most specific ones are to win."""
    ordered = levels if base.most_specific_header_mutations_wins else reversed(levels)
    return make_header_mutation((base, *ordered), name, context)
