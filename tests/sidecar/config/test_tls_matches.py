"""Which transport socket an endpoint gets."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.tls_matches import TransportSocketMatch, match_for

MATCHES = (
    TransportSocketMatch("both", (("a", "1"), ("b", True)), None),
    TransportSocketMatch("one", (("a", "1"),), None),
    TransportSocketMatch("number", (("n", 3),), None),
)


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ({"a": "1", "b": True, "c": 2}, "both"),
        ({"a": "1", "b": False}, "one"),
        ({"a": "1"}, "one"),
        ({"n": 3}, "number"),
        ({"a": "2"}, None),
        ({}, None),
    ],
)
def test_the_first_that_fits(labels: dict[str, Any], name: str | None) -> None:
    found = match_for(MATCHES, {"envoy.transport_socket_match": labels, "envoy.lb": {"a": "1"}})
    assert (None if found is None else found.name) == name


def test_no_labels_and_no_conditions() -> None:
    assert match_for(MATCHES, {}) is None
    assert match_for((TransportSocketMatch("any", (), None),), {}) is not None
