"""From the bootstrap's `stats_config` to what the store and its pages ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.config.stats import StatsConfig, StatsMatcher
from sidecar.core.matching import compile_string, compile_strings

from .settings import Matches, StatsSettings, TagRule


def compile_settings(config: StatsConfig) -> StatsSettings:
    """`StatsConfig`. Names are matched whole, as they stand in /stats."""
    return StatsSettings(
        tuple((tag.tag_name, tag.fixed_value) for tag in config.stats_tags if tag.fixed_value is not None),
        tuple(TagRule(tag.tag_name, _searcher(tag.regex)) for tag in config.stats_tags if tag.regex is not None),
        None if config.stats_matcher is None else _compile_matcher(config.stats_matcher),
        tuple((_named(compile_string(one.match)), one.buckets) for one in config.histogram_bucket_settings),
    )


def _searcher(regex: str) -> Callable[[str], Any]:
    import re2  # 2 MB, of which most configurations have no need

    search: Callable[[str], Any] = re2.compile(regex).search
    return search


def _named(condition: Callable[[bytes], bool]) -> Matches:
    return lambda name: condition(name.encode())


def _compile_matcher(matcher: StatsMatcher) -> Matches | None:
    if matcher.inclusion_list is not None:
        return _named(compile_strings(matcher.inclusion_list))
    if matcher.exclusion_list is not None:
        excluded = compile_strings(matcher.exclusion_list)
        return lambda name: not excluded(name.encode())
    return (lambda name: False) if matcher.reject_all else None
