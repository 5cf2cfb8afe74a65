"""Subsets: every way to fall back, redundant keys, lists, single hosts, and what is counted of them."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, cluster, endpoint, listener, manager, route, to
from tests.differential.case import Table
from tests.differential.cases.zones import extension

SELECTORS = [{"keys": ["a"]}, {"keys": ["a", "b"]}, {"keys": ["c", "d"]}]
REDUNDANT = [
    {"keys": ["a"]},
    {"keys": ["c", "d"]},
    {"keys": ["a", "b"]},
    {"keys": ["a", "b", "e"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["a"]},
    {"keys": ["x", "y"], "fallback_policy": "NO_FALLBACK"},
]
WANTED: dict[str, Message] = {
    "a": {"a": "1"},
    "b": {"b": "1"},
    "ab": {"a": "1", "b": "1"},
    "ab-none": {"a": "1", "b": "9"},
    "az": {"a": "1", "z": "1"},
    "abz": {"a": "1", "b": "1", "z": "1"},
    "abz-none": {"a": "1", "b": "9", "z": "1"},
    "abez": {"a": "1", "b": "9", "e": "1", "z": "1"},
    "abcd": {"a": "1", "b": "1", "c": "1", "d": "1"},
    "cdz": {"c": "1", "d": "1", "z": "1"},
    "xyz": {"x": "1", "y": "1", "z": "1"},
    "z": {"z": "1"},
    "list": {"a": ["1", "2"]},
    "two": {"a": "2"},
    "number": {"a": 1},
    "flag": {"a": True},
    "object": {"a": {"b": [1, {"c": "d"}]}},
    "falls-to-second": {"a": "8", "fallback_list": [{"a": "9"}, {"a": "2"}, {"a": "1"}]},
    "falls-to-more": {"a": "1", "fallback_list": [{"b": "1"}]},
    "falls-to-none": {"a": "1", "fallback_list": [{"a": "8"}]},
    "falls-to-nothing": {"a": "1", "fallback_list": []},
    "falls-to-text": {"a": "1", "fallback_list": "a"},
}


def subsets_more(site: Site) -> Message:
    def member(upstream: str, metadata: Message) -> Message:
        return endpoint(site, upstream, metadata={"filter_metadata": {"envoy.lb": metadata}})

    members = [
        member("a", {"a": "1", "b": "1"}),
        member("b", {"a": "2"}),
        member("c", {"c": "1", "d": "1"}),
        member("d", {"a": ["1", "2"]}),
        member("e", {"a": {"b": [1, {"c": "d"}]}}),
    ]

    def by(name: str, upstreams: str = "abcde", **fields: Any) -> Message:
        config = {"fallback_policy": "NO_FALLBACK", "subset_selectors": SELECTORS, **fields}
        chosen = [one for one, upstream in zip(members, "abcde", strict=True) if upstream in upstreams]
        assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": chosen}]}
        if "allow_redundant_keys" in fields:
            inner = extension("round_robin.v3.RoundRobin")
            policy = extension("subset.v3.Subset", subset_lb_policy=inner, **config)
            return cluster(site, name, load_assignment=assignment, load_balancing_policy=policy)
        return cluster(site, name, load_assignment=assignment, lb_subset_config=config)

    empty = {"default_subset": {"a": "none"}}
    clusters = [
        by("plain", "abc"),
        by("redundant", "abc", subset_selectors=REDUNDANT, allow_redundant_keys=True),
        by("redundant-default", "abc", subset_selectors=REDUNDANT, allow_redundant_keys=True,
           fallback_policy="DEFAULT_SUBSET", default_subset={"c": "1"}),
        by("lists", "ad", list_as_any=True, fallback_policy="DEFAULT_SUBSET", default_subset={"a": "2"}),
        by("values", "de"),
        by("fallback-list", "abc", metadata_fallback_policy="FALLBACK_LIST"),
        by("fallback-list-any", "a", metadata_fallback_policy="FALLBACK_LIST", fallback_policy="ANY_ENDPOINT"),
        by("empty-default", "a", fallback_policy="DEFAULT_SUBSET", **empty),
        by("panic-any", "a", fallback_policy="DEFAULT_SUBSET", panic_mode_any=True, **empty),
        by("panic-any-without", "a", panic_mode_any=True),
        by("single", "abc", subset_selectors=[{"keys": ["a"], "single_host_per_subset": True}]),
        by("selector-any", "a", subset_selectors=[{"keys": ["a"], "fallback_policy": "ANY_ENDPOINT"}]),
        by("selector-default", "bc", default_subset={"c": "1"},
           subset_selectors=[{"keys": ["a"], "fallback_policy": "DEFAULT_SUBSET"}]),
        by("selector-none", "a", fallback_policy="ANY_ENDPOINT",
           subset_selectors=[{"keys": ["a"], "fallback_policy": "NO_FALLBACK"}, {"keys": ["b"]}]),
        by("keys-of-keys", "abc", subset_selectors=[
            {"keys": ["a", "b", "z"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["a", "b"]},
            {"keys": ["a", "b"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["a"]},
            {"keys": ["a"]},
        ]),
    ]  # fmt: skip
    routes = [
        route(f"/{one['name']}/{name}", to(one["name"], metadata_match={"filter_metadata": {"envoy.lb": match}}))
        for one in clusters
        for name, match in sorted(WANTED.items(), reverse=True)
    ]
    return bootstrap(site, [listener(site, "http", manager(site, routes))], clusters)


BOOTSTRAPS = {"subsets-more": subsets_more}

table = Table("subsets", "subsets-more")
CASES = table.cases

ASKED = {
    "plain": ("a", "b", "ab", "ab-none", "az", "two", "cdz", "falls-to-second", "falls-to-text", "falls-to-nothing"),
    "redundant": ("a", "b", "ab", "ab-none", "az", "abz", "abz-none", "abez", "abcd", "cdz", "xyz", "z"),
    "redundant-default": ("az", "abz", "abz-none", "abez", "abcd", "cdz", "xyz", "z"),
    "lists": ("two", "list", "z"),
    "values": ("list", "number", "flag", "object", "two"),
    "fallback-list": ("two", *(name for name in WANTED if name.startswith("falls"))),
    "fallback-list-any": tuple(name for name in WANTED if name.startswith("falls")),
    "empty-default": ("a", "two", "z"),
    "panic-any": ("a", "two", "z"),
    "panic-any-without": ("a", "two", "z"),
    "single": ("a", "two", "z"),
    "selector-any": ("a", "two", "z"),
    "selector-default": ("two", "a", "z"),
    "selector-none": ("a", "two", "z", "b"),
    "keys-of-keys": ("abz", "abz-none", "ab-none", "az", "two"),
}
"""By cluster, what is asked for: where no chance is in the answer."""

for _cluster, _names in ASKED.items():
    for _name in _names:
        table.get(f"{_cluster}-{_name}", f"/{_cluster}/{_name}")
