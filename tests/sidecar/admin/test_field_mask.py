"""Field masks as trees."""

from __future__ import annotations

import pytest

from sidecar.admin.field_mask import Mask, fits, parse_mask
from sidecar.config.extensions import message_class


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("", {}),
        ("a", {"a": {}}),
        ("a.b,c", {"a": {"b": {}}, "c": {}}),
        ("a.b.c,a.d", {"a": {"b": {"c": {}}, "d": {}}}),
        ("a.b,a", {"a": {}}),
        ("a,a.b.c", {"a": {}}),
        (",a,", {"a": {}}),
    ],
)
def test_paths_make_a_tree_where_the_wider_wins(text: str, mask: Mask) -> None:
    assert parse_mask(text) == mask


@pytest.mark.parametrize(
    ("text", "fitting"),
    [
        ("name", True),
        ("load_assignment.endpoints", True),
        ("load_assignment.endpoints.priority", False),
        ("name.more", False),
        ("name,nothing", False),
    ],
)
def test_only_the_last_field_of_a_path_may_be_repeated(text: str, fitting: bool) -> None:
    assert fits(parse_mask(text), message_class("envoy.config.cluster.v3.Cluster").DESCRIPTOR) is fitting


def test_what_is_inside_an_any_is_told() -> None:
    cluster = message_class("envoy.config.cluster.v3.Cluster").DESCRIPTOR
    element = message_class("envoy.admin.v3.ClustersConfigDump.StaticCluster").DESCRIPTOR
    mask = parse_mask("cluster.name")
    assert fits(mask, element, {"cluster": cluster})
    assert not fits(mask, element)
