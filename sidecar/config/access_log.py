"""Where requests and connections are logged, how, and which of them: `envoy.config.accesslog.v3.AccessLog`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from sidecar.config.core_types import (
    Fraction,
    SubstitutionFormatString,
    parse_substitution_format,
)
from sidecar.config.fields import Node
from sidecar.config.matcher import HeaderMatcher, MetadataMatcher, parse_header_matcher, parse_metadata_matcher

_FILE = "envoy.extensions.access_loggers.file.v3.FileAccessLog"
_STDOUT = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
_STDERR = "envoy.extensions.access_loggers.stream.v3.StderrAccessLog"


@dataclass(frozen=True, slots=True)
class FileAccessLog:
    """Lines appended to the file at `path`. `log_format` None is Envoy's default line."""

    path: str
    log_format: SubstitutionFormatString | None = None


@dataclass(frozen=True, slots=True)
class StdoutAccessLog:
    """Lines on standard output."""

    log_format: SubstitutionFormatString | None = None


@dataclass(frozen=True, slots=True)
class StderrAccessLog:
    """Lines on standard error."""

    log_format: SubstitutionFormatString | None = None


AccessLogger: TypeAlias = FileAccessLog | StdoutAccessLog | StderrAccessLog


@dataclass(frozen=True, slots=True)
class StatusCodeFilter:
    """The response's status (0 without one) compared with `value`; `op` is EQ, GE, LE or NE."""

    op: str
    value: int


@dataclass(frozen=True, slots=True)
class DurationFilter:
    """The milliseconds that the request took, compared with `value`; `op` is EQ, GE, LE or NE."""

    op: str
    value: int


@dataclass(frozen=True, slots=True)
class NotHealthCheckFilter:
    """Only what is not a health check."""


@dataclass(frozen=True, slots=True)
class TraceableFilter:
    """Only what is traced."""


@dataclass(frozen=True, slots=True)
class RuntimeFilter:
    """A share of the requests; by the request id, so that every hop takes the same, unless independent."""

    percent_sampled: Fraction
    use_independent_randomness: bool


@dataclass(frozen=True, slots=True)
class AndFilter:
    """Only what all of these let through."""

    filters: tuple[AccessLogFilter, ...]


@dataclass(frozen=True, slots=True)
class OrFilter:
    """What one of these lets through."""

    filters: tuple[AccessLogFilter, ...]


@dataclass(frozen=True, slots=True)
class HeaderFilter:
    """A condition on the request's headers."""

    header: HeaderMatcher


@dataclass(frozen=True, slots=True)
class ResponseFlagFilter:
    """Only responses with one of these flags (`UF`, `NR`, ...); with any flag at all when there are none here."""

    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class GrpcStatusFilter:
    """Only responses with one of these gRPC status numbers, or only the others when `exclude`."""

    statuses: frozenset[int]
    exclude: bool


@dataclass(frozen=True, slots=True)
class MetadataFilter:
    """A condition on the dynamic metadata; None lets through by `match_if_key_not_found` alone."""

    matcher: MetadataMatcher | None
    match_if_key_not_found: bool


@dataclass(frozen=True, slots=True)
class LogTypeFilter:
    """Only entries of these types (`DownstreamEnd`, `TcpConnectionEnd`, ...), or only the others when `exclude`."""

    types: frozenset[str]
    exclude: bool


AccessLogFilter: TypeAlias = (
    StatusCodeFilter
    | DurationFilter
    | NotHealthCheckFilter
    | TraceableFilter
    | RuntimeFilter
    | AndFilter
    | OrFilter
    | HeaderFilter
    | ResponseFlagFilter
    | GrpcStatusFilter
    | MetadataFilter
    | LogTypeFilter
)


@dataclass(frozen=True, slots=True)
class AccessLog:
    """One log: its sink, and which entries go there (all when None)."""

    typed_config: AccessLogger
    filter: AccessLogFilter | None = None
    name: str = ""


def parse_access_logs(nodes: Iterable[Node]) -> tuple[AccessLog, ...]:
    """A list of `AccessLog`; one whose sink is refused is left out."""
    return tuple(log for node in nodes if (log := parse_access_log(node)) is not None)


def parse_access_log(node: Node) -> AccessLog | None:
    """`AccessLog`; None when its sink is refused."""
    condition = node.child("filter")
    sink = node.extension(known=(_FILE, _STDOUT, _STDERR))
    parsed = None if condition is None else parse_access_log_filter(condition)
    if sink is None:
        return None
    return AccessLog(_parse_sink(sink), parsed, node.get("name"))


def _parse_sink(node: Node) -> AccessLogger:
    log_format = _parse_log_format(node)
    if node.type_name == _FILE:
        return FileAccessLog(node.get("path"), log_format)
    return StdoutAccessLog(log_format) if node.type_name == _STDOUT else StderrAccessLog(log_format)


def _parse_log_format(node: Node) -> SubstitutionFormatString | None:
    match node.which("access_log_format"):
        case "log_format":
            log_format = node.child("log_format")
            return None if log_format is None else parse_substitution_format(log_format)
        case "format":
            return _plain_format(node.format("format"), None)
        case "json_format" | "typed_json_format" as field:
            return _plain_format(None, node.json_format(field))
        case _:
            return None


def _plain_format(text: str | None, json_format: dict[str, Any] | None) -> SubstitutionFormatString:
    return SubstitutionFormatString(text, json_format, False, b"")


def parse_access_log_filter(node: Node) -> AccessLogFilter | None:
    """`AccessLogFilter`; None when it is not set or refused."""
    kind = node.which("filter_specifier")
    if kind is None or kind == "extension_filter":
        return None  # not read, so refused
    inner = node.child(kind)
    return None if inner is None else _filters[kind](inner)


def _comparison(node: Node) -> tuple[str, int]:
    comparison = node.child("comparison")
    return ("EQ", 0) if comparison is None else (comparison.enum("op"), comparison.runtime_value("value", 0))


def _parse_all(node: Node) -> tuple[AccessLogFilter, ...]:
    filters = map(parse_access_log_filter, node.children("filters"))
    return tuple(condition for condition in filters if condition is not None)


def _parse_runtime_filter(node: Node) -> RuntimeFilter:
    sampled = node.fraction("percent_sampled") or (0, 100)
    return RuntimeFilter(
        node.context.runtime.fraction(node.get("runtime_key")) or sampled, node.get("use_independent_randomness")
    )


def _parse_header_filter(node: Node) -> HeaderFilter | None:
    header = node.child("header")
    return None if header is None else HeaderFilter(parse_header_matcher(header))


def _parse_metadata_filter(node: Node) -> MetadataFilter:
    matcher = node.child("matcher")
    return MetadataFilter(
        None if matcher is None else parse_metadata_matcher(matcher), node.wrapped("match_if_key_not_found", True)
    )


_filters: dict[str, Any] = {
    "status_code_filter": lambda node: StatusCodeFilter(*_comparison(node)),
    "duration_filter": lambda node: DurationFilter(*_comparison(node)),
    "not_health_check_filter": lambda _: NotHealthCheckFilter(),
    "traceable_filter": lambda _: TraceableFilter(),
    "runtime_filter": _parse_runtime_filter,
    "and_filter": lambda node: AndFilter(_parse_all(node)),
    "or_filter": lambda node: OrFilter(_parse_all(node)),
    "header_filter": _parse_header_filter,
    "response_flag_filter": lambda node: ResponseFlagFilter(frozenset(node.get("flags"))),
    "grpc_status_filter": lambda node: GrpcStatusFilter(frozenset(node.get("statuses")), node.get("exclude")),
    "metadata_filter": _parse_metadata_filter,
    "log_type_filter": lambda node: LogTypeFilter(frozenset(node.enums("types")), node.get("exclude")),
}
