"""Access logs: sinks, formats, filters."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.access_log import (
    AccessLog,
    AccessLogFilter,
    AndFilter,
    DurationFilter,
    FileAccessLog,
    GrpcStatusFilter,
    HeaderFilter,
    LogTypeFilter,
    MetadataFilter,
    NotHealthCheckFilter,
    OrFilter,
    ResponseFlagFilter,
    RuntimeFilter,
    StatusCodeFilter,
    StderrAccessLog,
    StdoutAccessLog,
    TraceableFilter,
    parse_access_log,
)
from sidecar.config.core_types import SubstitutionFormatString
from sidecar.config.matcher import HeaderMatcher, MetadataMatcher, PresentMatch
from tests.sidecar.config.building import build_with_warnings, problems
from tests.sidecar.config.resources import LOGGER, Document, bootstrap, listener, load_listener, refusals

ACCESS_LOG = "envoy.config.accesslog.v3.AccessLog"


def load_log(**fields: Any) -> AccessLog:
    (log,) = load_listener(access_log=[fields]).access_log
    return log


def sink(kind: str, **fields: Any) -> Document:
    return {"@type": LOGGER + kind, **fields}


def text(line: str) -> SubstitutionFormatString:
    return SubstitutionFormatString(line, None, False, b"")


def json(fields: Document, *, omit: bool = False) -> SubstitutionFormatString:
    return SubstitutionFormatString(None, fields, omit, b"")


@pytest.mark.parametrize(
    ("typed_config", "logger"),
    [
        (sink("file.v3.FileAccessLog", path="/dev/null"), FileAccessLog("/dev/null")),
        (sink("file.v3.FileAccessLog", path="/dev/null", format="x\n"), FileAccessLog("/dev/null", text("x\n"))),
        (
            sink("file.v3.FileAccessLog", path="/dev/null", json_format={"b": "%PROTOCOL%", "a": 1}),
            FileAccessLog("/dev/null", json({"a": 1, "b": "%PROTOCOL%"})),
        ),
        (
            sink("file.v3.FileAccessLog", path="/dev/null", log_format={"text_format": "y"}),
            FileAccessLog("/dev/null", text("y")),
        ),
        (
            sink("stream.v3.StdoutAccessLog", log_format={"text_format_source": {"inline_string": "z"}}),
            StdoutAccessLog(text("z")),
        ),
        (
            sink("stream.v3.StderrAccessLog", log_format={"json_format": {"a": [{"c": 1}]}, "omit_empty_values": True}),
            StderrAccessLog(json({"a": [{"c": 1}]}, omit=True)),
        ),
        (sink("stream.v3.StdoutAccessLog"), StdoutAccessLog(None)),
    ],
)
def test_sinks(typed_config: Document, logger: object) -> None:
    assert load_log(name="log", typed_config=typed_config) == AccessLog(logger, None, "log")  # type: ignore[arg-type]


def test_the_keys_of_a_json_format_are_in_order_at_every_level() -> None:
    fields = {"zeta": "1", "alpha": {"z": 1, "b": [{"y": 1, "x": 2}]}, "Mid": "2"}
    log = load_log(typed_config=sink("stream.v3.StdoutAccessLog", log_format={"json_format": fields}))
    log_format = log.typed_config.log_format
    assert log_format is not None
    assert log_format.json_format is not None
    assert list(log_format.json_format) == ["Mid", "alpha", "zeta"]
    assert list(log_format.json_format["alpha"]) == ["b", "z"]
    assert list(log_format.json_format["alpha"]["b"][0]) == ["x", "y"]


COMPARISON = {"comparison": {"op": "LE", "value": {"default_value": 7, "runtime_key": "limit"}}}
HEALTH: Document = {"not_health_check_filter": {}}
METADATA = {"filter": "f", "path": [{"key": "k"}], "value": {"present_match": True}}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"status_code_filter": COMPARISON}, StatusCodeFilter("LE", 7)),
        ({"duration_filter": COMPARISON}, DurationFilter("LE", 7)),
        (HEALTH, NotHealthCheckFilter()),
        ({"traceable_filter": {}}, TraceableFilter()),
        (
            {
                "runtime_filter": {
                    "runtime_key": "k",
                    "percent_sampled": {"numerator": 5, "denominator": "TEN_THOUSAND"},
                    "use_independent_randomness": True,
                }
            },
            RuntimeFilter((5, 10_000), True),
        ),
        (
            {"and_filter": {"filters": [HEALTH, {"traceable_filter": {}}]}},
            AndFilter((NotHealthCheckFilter(), TraceableFilter())),
        ),
        ({"or_filter": {"filters": [HEALTH, HEALTH]}}, OrFilter((NotHealthCheckFilter(), NotHealthCheckFilter()))),
        ({"header_filter": {"header": {"name": "X-A"}}}, HeaderFilter(HeaderMatcher(b"x-a", True))),
        ({"response_flag_filter": {"flags": ["UH", "NR"]}}, ResponseFlagFilter(frozenset({"UH", "NR"}))),
        ({"response_flag_filter": {}}, ResponseFlagFilter(frozenset())),
        (
            {"grpc_status_filter": {"statuses": ["OK", "UNAVAILABLE"], "exclude": True}},
            GrpcStatusFilter(frozenset({0, 14}), True),
        ),
        ({"metadata_filter": {"match_if_key_not_found": False}}, MetadataFilter(None, False)),
        (
            {"metadata_filter": {"matcher": METADATA}},
            MetadataFilter(MetadataMatcher("f", ("k",), PresentMatch(True)), True),
        ),
        (
            {"log_type_filter": {"types": ["DownstreamEnd", "TcpConnectionEnd"]}},
            LogTypeFilter(frozenset({"DownstreamEnd", "TcpConnectionEnd"}), False),
        ),
    ],
)
def test_filters(document: Document, expected: AccessLogFilter) -> None:
    assert load_log(filter=document, typed_config=sink("stream.v3.StdoutAccessLog")).filter == expected


def test_options_of_json_are_ignored_with_a_warning() -> None:
    document = {
        "typed_config": sink(
            "stream.v3.StdoutAccessLog",
            log_format={"json_format": {"a": 1}, "json_format_options": {"sort_properties": False}},
        )
    }
    log, warnings = build_with_warnings(ACCESS_LOG, document, parse_access_log)
    assert log == AccessLog(StdoutAccessLog(json({"a": 1})))
    assert len(warnings) == 1
    assert "properties are always sorted, as in Envoy" in warnings[0]


def test_what_is_wrong_is_refused() -> None:
    assert problems(ACCESS_LOG, {"name": "envoy.access_loggers.stdout"}, parse_access_log) == [
        ("typed_config", "is required to tell which extension is meant")
    ]
    wasm = {"typed_config": sink("wasm.v3.WasmAccessLog")}
    (path, problem), *_ = refusals(bootstrap([listener(access_log=[wasm])]))
    assert path == "static_resources.listeners[0].access_log[0].typed_config"
    assert problem == "envoy.extensions.access_loggers.wasm.v3.WasmAccessLog is not implemented by Mizzen"
    missing = sink("stream.v3.StdoutAccessLog", log_format={"text_format_source": {"filename": "/nonexistent/format"}})
    (path, problem), *_ = refusals(bootstrap([listener(access_log=[{"typed_config": missing}])]))
    assert path.endswith(".log_format.text_format_source.filename")
    assert problem == "cannot be read: No such file or directory"
    cel = {"extension_filter": {"name": "cel"}}
    (path, problem), *_ = refusals(
        bootstrap([listener(access_log=[{"filter": cel, "typed_config": sink("stream.v3.StdoutAccessLog")}])])
    )
    assert path == "static_resources.listeners[0].access_log[0].filter.extension_filter"
    assert problem == "is not implemented by Mizzen"
