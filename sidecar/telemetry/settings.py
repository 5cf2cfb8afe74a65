"""What `stats_config` of the bootstrap changes: tags, visibility and histogram buckets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .histogram import DEFAULT_BUCKETS
from .naming import Tag
from .tags import Naming

Matches = Callable[[str], bool]
"""Whether a statistic's full name (`cluster.backend.upstream_rq_total`) is wanted."""


@dataclass(frozen=True, slots=True)
class TagRule:
    """One of `stats_tags` with a `regex`. `search` is that of the compiled (RE2) pattern.

    The pattern's first group is what leaves the name, its second (or else the first) the value. It sees the name's
    prefix, not the leaf.
    """

    name: str
    search: Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class StatsSettings:
    """`stats_config`: `fixed_tags` (name and value), `tag_rules`, `visible` (`stats_matcher`; None shows all) and
    `buckets` (`histogram_bucket_settings`: which names, and their ascending upper bounds; the first match counts).
    """

    fixed_tags: tuple[Tag, ...] = ()
    tag_rules: tuple[TagRule, ...] = ()
    visible: Matches | None = None
    buckets: tuple[tuple[Matches, tuple[float, ...]], ...] = field(default=())

    def tagged(self, naming: Naming) -> Naming:
        """`naming` with the tags that the rules find in its prefix; a rule for a tag that is there replaces it."""
        for rule in self.tag_rules:
            if found := rule.search(naming.prefix):
                naming = _extracted(naming, rule.name, found)
        return naming

    def buckets_for(self, name: str) -> Sequence[float]:
        """Upper bounds of the buckets of the histogram `name`."""
        for matches, bounds in self.buckets:
            if matches(name):
                return bounds
        return DEFAULT_BUCKETS


def _extracted(naming: Naming, name: str, found: Any) -> Naming:
    groups = found.re.groups
    value = found.group(2 if groups > 1 else 1)
    tags = (*(tag for tag in naming.tags if tag[0] != name), (name, value))
    start, end = found.span(1)
    words = naming.prefix if naming.tag_extracted_prefix is None else naming.tag_extracted_prefix
    kept = []
    left = words.split(".")
    position = 0
    for token in naming.prefix.split("."):
        if left and token == left[0]:
            left.pop(0)
            if not start <= position < end:
                kept.append(token)
        position += len(token) + 1
    return Naming(naming.prefix, tags, words if left else ".".join(kept))
