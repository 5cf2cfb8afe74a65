"""Building one frozen object from a literal, as if it stood in a file whose clusters are `a` and `b`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pytest

from sidecar.config.constraints import check
from sidecar.config.extensions import message_class
from sidecar.config.fields import Context, Node
from sidecar.config.problems import ConfigurationError
from sidecar.config.source import Source

Built = TypeVar("Built")
Document = Mapping[str, Any]

CLUSTERS = ("a", "b")


def build_with_warnings(type_name: str, document: Document, parse: Callable[[Node], Built]) -> tuple[Built, list[str]]:
    """What `parse` makes of the message, and the warnings. Raises ConfigurationError with all problems."""
    context = Context("test.yaml")
    message = Source(document, "test.yaml").read(message_class(type_name)(), context.problems)
    node = Node(message, "", context)
    for cluster in CLUSTERS:
        context.declare("cluster", cluster, node)
    check(message, context.refuse)
    with context:
        built = parse(node)
    return built, context.warnings


def build(type_name: str, document: Document, parse: Callable[[Node], Built]) -> Built:
    """What `parse` makes of the message, which must give no warning."""
    built, warnings = build_with_warnings(type_name, document, parse)
    assert warnings == []
    return built


def problems(type_name: str, document: Document, parse: Callable[[Node], object]) -> list[tuple[str, str]]:
    """The (path, problem) pairs for which the message is refused."""
    with pytest.raises(ConfigurationError) as raised:
        build_with_warnings(type_name, document, parse)
    return [(problem.path, problem.problem) for problem in raised.value.problems]
