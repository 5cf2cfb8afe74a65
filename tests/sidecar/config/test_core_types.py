"""The small messages that are not seen through a larger one's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.core_types import (
    NO_METADATA,
    HeaderValueOption,
    parse_data_source,
    parse_header_value_option,
    parse_metadata,
)
from tests.sidecar.config.building import build, problems

DATA_SOURCE = "envoy.config.core.v3.DataSource"
HEADER = "envoy.config.core.v3.HeaderValueOption"
METADATA = "envoy.config.core.v3.Metadata"


def test_data_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"\x00file")
    monkeypatch.setenv("MIZZEN_TEST_BODY", "environment")
    for document, expected in (
        ({"filename": str(file)}, b"\x00file"),
        ({"environment_variable": "MIZZEN_TEST_BODY"}, b"environment"),
        ({"inline_bytes": "AAE="}, b"\x00\x01"),
        ({"inline_string": "é"}, "é".encode()),
    ):
        assert build(DATA_SOURCE, document, parse_data_source) == expected


def test_data_sources_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIZZEN_TEST_BODY", raising=False)
    assert problems(DATA_SOURCE, {"environment_variable": "MIZZEN_TEST_BODY"}, parse_data_source) == [
        ("environment_variable", "names MIZZEN_TEST_BODY, which is not set")
    ]
    assert problems(DATA_SOURCE, {"filename": str(tmp_path)}, parse_data_source) == [
        ("filename", "cannot be read: Is a directory")
    ]


@pytest.mark.parametrize("key", ["Host", ":path"])
def test_pseudo_headers_and_host_are_not_for_adding(key: str) -> None:
    document = {"header": {"key": key, "value": "x"}}
    assert problems(HEADER, document, parse_header_value_option) == [
        ("header.key", "may not be changed: it is a pseudo-header or host")
    ]
    built = build(HEADER, document, lambda node: parse_header_value_option(node, any_header=True))
    assert built == HeaderValueOption(key.lower().encode(), "x", "APPEND_IF_EXISTS_OR_ADD", False)


def test_append_and_append_action_exclude_each_other() -> None:
    document = {"header": {"key": "a", "value": "x"}, "append": True, "append_action": "ADD_IF_ABSENT"}
    assert problems(HEADER, document, parse_header_value_option) == [("append", "is set together with append_action")]


def test_metadata() -> None:
    document = {"filter_metadata": {"b": {"x": [1, {"y": None}]}, "a": {}}}
    assert build(METADATA, document, parse_metadata) == {"a": {}, "b": {"x": [1, {"y": None}]}}
    assert parse_metadata(None) is NO_METADATA
    typed = {"typed_filter_metadata": {"a": {"@type": "type.googleapis.com/envoy.config.core.v3.Metadata"}}}
    assert problems(METADATA, typed, parse_metadata) == [("typed_filter_metadata", "is not implemented by Mizzen")]
