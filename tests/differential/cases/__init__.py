"""All subjects: the bootstraps that they run on, and their cases sorted by bootstrap (each is started once)."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from tests.differential.blocks import Message, Site
from tests.differential.case import Case

HTTP_UPSTREAMS = ("a", "b", "c", "d", "e")
RAW_UPSTREAMS = ("tcp", "tcp2")

BOOTSTRAPS: dict[str, Callable[[Site], Message]] = {}
CASES: list[Case] = []

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    _subject = importlib.import_module(f"{__name__}.{_module}")
    BOOTSTRAPS.update(_subject.BOOTSTRAPS)
    CASES.extend(_subject.CASES)

CASES.sort(key=lambda case: case.bootstrap)

_names = [case.name for case in CASES]
assert len(set(_names)) == len(_names), {name for name in _names if _names.count(name) > 1}
