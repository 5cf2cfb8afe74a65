"""`envoy.extensions.filters.http.set_filter_state.v3.Config`: what is read of it, and what would have no effect."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.filters.set_filter_state import TYPE, parse_set_filter_state
from tests.sidecar.config.building import build, problems

KEY = "envoy.network.application_protocols"


def value(text: str, key: str = KEY, **fields: Any) -> dict[str, Any]:
    return {"object_key": key, "format_string": {"text_format_source": {"inline_string": text}}, **fields}


def test_the_names_are_known_when_the_configuration_is() -> None:
    built = build(TYPE, {"on_request_headers": [value("istio-h2,istio"), value("h2")]}, parse_set_filter_state)
    assert [(one.object_key, tuple(one.protocols)) for one in built.on_request_headers] == [
        (KEY, ("istio-h2", "istio")),
        (KEY, ("h2",)),
    ]
    assert build(TYPE, {}, parse_set_filter_state).on_request_headers == ()


@pytest.mark.parametrize(
    ("document", "field", "words"),
    [
        (value("a", key="envoy.string"), "object_key", "'envoy.string' is not implemented by Mizzen"),
        (value("%REQ(x-offer)%"), "format_string", "has operators, which Mizzen has not got here"),
        (value("a,,b"), "format_string", "has a name that ALPN cannot carry"),
        (value("a" * 256), "format_string", "has a name that ALPN cannot carry"),
        (value("a", skip_if_empty=True), "skip_if_empty", "is not implemented by Mizzen"),
        (value("a", shared_with_upstream="ONCE"), "shared_with_upstream", "is not implemented by Mizzen"),
        (value("a", read_only=True), "read_only", "is not implemented by Mizzen"),
        (value("a", factory_key=KEY), "factory_key", "is not implemented by Mizzen"),
    ],
    ids=["key", "operators", "hole", "long", "skip", "shared", "read only", "factory"],
)
def test_what_would_have_no_effect_is_refused(document: dict[str, Any], field: str, words: str) -> None:
    found = problems(TYPE, {"on_request_headers": [document]}, parse_set_filter_state)
    assert [(path, said) for path, said in found if said.startswith(words)] == [
        (f"on_request_headers[0].{field}", words)
    ]
