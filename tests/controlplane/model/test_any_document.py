"""Whatever a document is, it becomes a resource or is refused with causes: nothing else ever happens."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.model.causes import Invalid
from controlplane.model.parsing import parse
from tests.controlplane.model.documents import document
from tests.controlplane.model.test_good_documents import GOOD

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [
            "",
            "*",
            "a",
            "*.a",
            "1s",
            "-1s",
            "10.0.0.0/8",
            "/",
            "(",
            "%",
            "unix://",
            "ns/name",
            "~/*",
            "\u00b2",
            "\uff18\uff10",
            "9" * 5000,
            10**400,
            -(10**400),
        ]
    )
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


def _judge(made: Any) -> None:
    try:
        resource = parse(made)
    except Invalid as invalid:
        assert invalid.causes and all(cause.message for cause in invalid.causes)
    else:
        assert resource.name


@given(_JSON)
def test_anything(made: Any) -> None:
    _judge(made)


@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(GOOD), st.lists(st.integers(0, 40), min_size=1, max_size=8), _JSON)
def test_something_good_with_anything_in_one_place(good: tuple[str, str], way: list[int], value: Any) -> None:
    made = copy.deepcopy(document(*good))
    place: Any = made
    last: tuple[Any, Any] = (made, "spec")
    for step in way:
        keys = list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
        if not keys:
            break
        last = (place, keys[step % len(keys)])
        place = place[last[1]]
    last[0][last[1]] = value
    _judge(made)


def test_what_is_nested_without_end_is_refused() -> None:
    nested: Any = {}
    for _ in range(5000):
        nested = {"a": nested, "b": [nested]} if _ % 2 else [nested]
    for made in (document("EnvoyFilter", "{}") | {"spec": nested}, document("ConfigMap", "{}") | {"data": nested}):
        with pytest.raises(Invalid):
            parse(made)
