"""Routes to one of several clusters, or to the one that a request header names.

Source: Envoy's ``WeightedCluster`` and ``RouteAction.cluster_header`` reference.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from sidecar.config.route_action import WeightedCluster
from sidecar.core.head import RequestHead
from sidecar.core.matching import parse_unsigned
from sidecar.router.hash_policy import HashKey
from sidecar.router.route import PickCluster, Route


def named_by_header(header: bytes) -> PickCluster:
    """The cluster that the header names: its first value, and no cluster at all without it."""

    def pick(request: RequestHead, random: Random, stream: Any = None) -> tuple[str, None]:
        return _first_value(request, header), None

    return pick


def _first_value(request: RequestHead, header: bytes) -> str:
    if header[:1] == b":" or header == b"host":
        value = request.lookup(header)
        return "" if value is None else value.decode("latin-1")
    values = request.get_all(header)
    return values[0].decode("latin-1") if values else ""


def weighted(config: WeightedCluster, entries: Sequence[Route], hash_key: HashKey | None) -> PickCluster:
    """One of the entries, which stand in the order of ``config.clusters``, in proportion to the weights.

    ``hash_key`` is the route's hash policy, making no cookies, where that decides.
    """
    bounds: list[int] = []
    total = 0
    for cluster in config.clusters:
        total += cluster.weight
        bounds.append(total)
    picks = tuple((entry.cluster_name, entry) for entry in entries)
    headers = tuple(cluster.cluster_header for cluster in config.clusters)
    number_header = config.header_name
    choose = _chooser(total, number_header, hash_key if config.use_hash_policy else None)

    if not any(headers) and choose is None:

        def pick_at_random(request: RequestHead, random: Random, stream: Any = None) -> tuple[str, Route]:
            return picks[bisect_right(bounds, int(random.random() * total))]

        return pick_at_random

    def pick(request: RequestHead, random: Random, stream: Any = None) -> tuple[str, Route]:
        number = None if choose is None else choose(request, stream)
        if number is None:
            number = int(random.random() * total)
        at = bisect_right(bounds, number)
        if headers[at]:
            return _first_value(request, headers[at]), picks[at][1]
        return picks[at]

    return pick


def _chooser(total: int, header: bytes, hash_key: HashKey | None) -> Callable[[RequestHead, Any], int | None] | None:
    if header:

        def by_header(request: RequestHead, stream: Any) -> int | None:
            values = request.get_all(header)
            number = parse_unsigned(values[0]) if len(values) == 1 else None
            return None if number is None else number % total

        return by_header
    if hash_key is not None:
        key_of = hash_key

        def by_hash(request: RequestHead, stream: Any) -> int | None:
            key = None if stream is None else key_of(stream)
            return None if key is None else key % total

        return by_hash
    return None
