"""Response counters: counted once by status code, expanded to Envoy's names at a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..stats import CodeCounts, Derived, Kind, Sample
from ..tags import RESPONSE_CODE, RESPONSE_CODE_CLASS

Codes = Callable[[Any], tuple[CodeCounts, ...]]
"""Which counts of a group add up to the response counters."""

_KNOWN = range(100, 600)


def _total(sources: tuple[CodeCounts, ...]) -> CodeCounts:
    if len(sources) == 1:
        return sources[0]
    total = CodeCounts()
    for source in sources:
        for status, responses in source.items():
            total[status] += responses
    return total


def by_code(stem: str, codes: Codes) -> Derived:
    """`upstream_rq_404` for each code that was seen."""

    def expand(group: Any) -> list[Sample]:
        return [
            Sample(f"{stem}_{status}", responses, ((RESPONSE_CODE, str(status)),), True)
            for status, responses in sorted(_total(codes(group)).items())
            if status in _KNOWN
        ]

    return Derived(stem, Kind.COUNTER, expand)


def unknown(stem: str, codes: Codes) -> Derived:
    """`upstream_rq_unknown`: responses with a code of no class."""

    def expand(group: Any) -> Iterator[Sample]:
        found = [source[status] for source in codes(group) for status in source if status not in _KNOWN]
        if found:
            yield Sample(f"{stem}_unknown", sum(found), (), True)

    return Derived(f"{stem}_unknown", Kind.COUNTER, expand)


def by_class(stem: str, codes: Codes, *, always: bool = False) -> Derived:
    """`upstream_rq_4xx` for each class that was seen, or for all five with `always`."""

    def expand(group: Any) -> list[Sample]:
        classes = CodeCounts()
        for source in codes(group):
            for status, responses in source.items():
                if status in _KNOWN:
                    classes[status // 100] += responses
        return [
            Sample(f"{stem}_{digit}xx", classes[digit], ((RESPONSE_CODE_CLASS, str(digit)),), digit in classes)
            for digit in (range(1, 6) if always else sorted(classes))
        ]

    return Derived(f"{stem}_xx", Kind.COUNTER, expand)


def completed(stem: str, codes: Codes, *, always: bool = True) -> Derived:
    """`upstream_rq_completed`: the responses of all codes; without `always` only once there was one."""

    def expand(group: Any) -> Iterator[Sample]:
        seen = [source for source in codes(group) if source]
        if seen or always:
            yield Sample(f"{stem}_completed", sum([sum(source.values()) for source in seen]), (), bool(seen))

    return Derived(f"{stem}_completed", Kind.COUNTER, expand)
