"""The resources of the book shop are right, each by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from controlplane.cli.demo import resources
from controlplane.model.parsing import parse


@pytest.mark.parametrize("path", sorted(resources().glob("*.yaml")), ids=lambda path: path.name)
def test_a_resource_is_right(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        assert parse(document).namespace == "shop"


def test_there_are_some() -> None:
    assert len(list(resources().glob("*.yaml"))) >= 6
