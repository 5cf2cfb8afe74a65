"""No field of the configuration is ignored silently: each is implemented, refused, or named in a warning."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.docs.effects import Effects, look_for_effects
from tests.running import REPOSITORY

NO_DIFFERENCE = {
    ("envoy.config.core.v3.SocketOption", "description"),  # a comment
    ("envoy.config.route.v3.RouteConfiguration", "max_direct_response_body_size_bytes"),  # no body here reaches it
    ("envoy.extensions.filters.http.fault.v3.HTTPFault", "abort_http_status_runtime"),  # no value here is a status
    ("envoy.config.route.v3.WeightedCluster", "runtime_key_prefix"),  # no key of the runtime here begins with it
}
"""What is read, and changes nothing that is built."""

ENOUGH = 10
"""A field that was left out so often without a difference makes none; below, it had its default value by chance."""

ONLY_CHECKED = {
    "Inherited.max_direct_response_body_size_bytes", "Inherited.validate_clusters",
    "WeightedCluster.total_weight",
}  # fmt: skip
"""What the configuration holds and no stage reads: names, and what has done its work when the configuration is built."""

OF_CONFIGURATION_ALONE = {"config/context.py", "config/problems.py", "config/fields.py"}


@pytest.fixture(scope="module")
def effects() -> Effects:
    return look_for_effects(600)


def test_every_field_that_is_read_makes_a_difference(effects: Effects) -> None:
    assert {key for key in effects.silent if effects.tried[key] >= ENOUGH} <= NO_DIFFERENCE


def test_the_search_reaches_all_kinds_of_messages(effects: Effects) -> None:
    assert len(effects.effective) > 800
    assert {
        ("envoy.config.route.v3.RetryPolicy", "num_retries"),
        ("envoy.config.rbac.v3.RBAC", "action"),
        ("envoy.config.core.v3.RuntimeFractionalPercent", "default_value"),
        ("envoy.config.core.v3.RuntimeFractionalPercent", "runtime_key"),
        ("envoy.extensions.filters.http.fault.v3.HTTPFault", "delay_percent_runtime"),
        ("envoy.config.metrics.v3.StatsConfig", "stats_matcher"),
    } <= effects.effective


def _modules(inside: bool) -> Iterator[tuple[str, ast.Module]]:
    root = REPOSITORY / "sidecar"
    for path in sorted(root.rglob("*.py")):
        name = str(path.relative_to(root))
        if name.startswith("config/") is inside and name not in OF_CONFIGURATION_ALONE:
            yield name, ast.parse(path.read_text())


def _read_by_stages() -> tuple[set[str], set[str]]:
    """The attributes that are read outside `config/`, and the classes that are taken apart there by position.

    What an object of the configuration reads of itself counts too.
    """
    attributes, classes = set(), set()
    for _, module in _modules(inside=True):
        for node in ast.walk(module):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
                attributes.add(node.attr)
    for _, module in _modules(inside=False):
        for node in ast.walk(module):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                attributes.add(node.attr)
            elif isinstance(node, ast.MatchClass) and node.patterns:
                classes.add(ast.unparse(node.cls))
    return attributes, classes


def _frozen_fields() -> Iterator[tuple[str, str]]:
    """The classes and fields of the objects that configuration is built of."""
    for _, module in _modules(inside=True):
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(one) for one in node.decorator_list):
                for statement in node.body:
                    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                        yield node.name, statement.target.id


def test_what_is_built_is_read_by_a_stage() -> None:
    attributes, classes = _read_by_stages()
    unread = {f"{kind}.{name}" for kind, name in _frozen_fields() if name not in attributes and kind not in classes}
    assert unread - ONLY_CHECKED == set()
