"""Tags, filters and buckets of statistics: `envoy.config.metrics.v3.StatsConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.fields import Node
from sidecar.config.matcher import StringMatcher, parse_string_matcher, regex_problem


@dataclass(frozen=True, slots=True)
class TagSpecifier:
    """A tag: a value that all statistics have, or what an RE2 expression finds in the name of one.

    Exactly one of `regex` and `fixed_value` is not None, but for one of Envoy's default tags, which has neither.
    """

    tag_name: str
    regex: str | None = None
    fixed_value: str | None = None


@dataclass(frozen=True, slots=True)
class StatsMatcher:
    """Which statistics there are: none, all but the excluded, or only the included (None: no such list)."""

    reject_all: bool = False
    exclusion_list: tuple[StringMatcher, ...] | None = None
    inclusion_list: tuple[StringMatcher, ...] | None = None


@dataclass(frozen=True, slots=True)
class HistogramBucketSettings:
    """The upper bounds of the buckets of the histograms whose names match, ascending."""

    match: StringMatcher
    buckets: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StatsConfig:
    """How statistics are named and kept."""

    stats_tags: tuple[TagSpecifier, ...] = ()
    stats_matcher: StatsMatcher | None = None
    histogram_bucket_settings: tuple[HistogramBucketSettings, ...] = ()


DEFAULT_STATS_CONFIG = StatsConfig()


def parse_stats_config(node: Node) -> StatsConfig:
    """`StatsConfig`."""
    matcher = node.child("stats_matcher")
    if not node.wrapped("use_all_default_tags", True):
        node.context.warn(node.path_of("use_all_default_tags"), "is ignored: statistics always have Envoy's own tags")
    return StatsConfig(
        tuple(tag for one in node.children("stats_tags") if (tag := _parse_tag(one)) is not None),
        None if matcher is None else _parse_stats_matcher(matcher),
        tuple(map(_parse_buckets, node.children("histogram_bucket_settings"))),
    )


def _parse_tag(node: Node) -> TagSpecifier | None:
    name = node.get("tag_name")
    match node.which("tag_value"):
        case "fixed_value":
            return TagSpecifier(name, None, node.get("fixed_value"))
        case "regex":
            regex = node.get("regex")
            if "(?=" in regex:  # which Envoy's own engine for tags knows
                node.context.warn(node.path_of("regex"), f"the tag {name!r} is left out: RE2 has no (?=")
                return None
            if (problem := regex_problem(regex.encode())) is not None:
                node.refuse(f"is no regular expression for RE2: {problem}", "regex", "correct it; see RE2's syntax")
            return TagSpecifier(name, regex)
        case _:
            if not name.startswith("envoy."):
                node.refuse("says nothing about the tag's value", do="set regex or fixed_value")
            return TagSpecifier(name)


def _parse_stats_matcher(node: Node) -> StatsMatcher:
    exclusions, inclusions = node.child("exclusion_list"), node.child("inclusion_list")
    return StatsMatcher(
        node.get("reject_all"),
        None if exclusions is None else tuple(map(parse_string_matcher, exclusions.children("patterns"))),
        None if inclusions is None else tuple(map(parse_string_matcher, inclusions.children("patterns"))),
    )


def _parse_buckets(node: Node) -> HistogramBucketSettings:
    return HistogramBucketSettings(parse_string_matcher(node.child("match")), tuple(sorted(node.get("buckets"))))
