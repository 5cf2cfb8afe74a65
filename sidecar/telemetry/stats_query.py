"""The query of /stats and /stats/prometheus: its parameters, Envoy's answers to wrong ones, and the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .exposition import prometheus
from .listing import json, text
from .settings import Matches
from .stats import Kind
from .store import StatsStore

_TEXT = "text/plain; charset=UTF-8"
_BUCKETS_USAGE = "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary)\n"
_FORMAT_USAGE = "usage: /stats?format=(json|prometheus|text)\n\n"


@dataclass(frozen=True, slots=True)
class StatsPage:
    """An answer of /stats: HTTP status, content type, and the body in chunks, to be written one in a loop turn."""

    status: int
    content_type: str
    body: Iterator[bytes]


def _refused(message: str) -> StatsPage:
    return StatsPage(400, _TEXT, iter((message.encode(),)))


def stats_page(store: StatsStore, parameters: Mapping[str, str], *, as_prometheus: bool = False) -> StatsPage:
    """The page for a query: `usedonly`, `filter` and `invert_filter` (RE2, on full names), `format` (text, json,
    prometheus), `type`, `histogram_buckets`, `text_readouts`. `as_prometheus` is for /stats/prometheus.

    A wrong parameter gives status 400 with Envoy's text. HTML is not offered.
    """
    shape = "prometheus" if as_prometheus else parameters.get("format", "text")
    if shape not in ("text", "json", "prometheus"):
        return _refused(_FORMAT_USAGE)
    mode = parameters.get("histogram_buckets", "")
    if mode not in ("", "none", "cumulative", "disjoint", "detailed", "summary"):
        return _refused(_BUCKETS_USAGE)
    kinds = tuple(Kind)
    wanted = parameters.get("type", "All")
    if wanted != "All":
        try:
            kinds = (Kind(wanted),)
        except ValueError:
            return _refused("invalid &type= param")
    matches = visible = store.settings.visible
    if pattern := parameters.get("filter"):
        try:
            matches = _matcher(pattern, "invert_filter" in parameters, visible)
        except ValueError as error:
            return _refused(f"Invalid re2 regex: {error}")
    used_only = "usedonly" in parameters
    if shape == "prometheus":
        if mode not in ("", "none", "cumulative", "summary"):
            return _refused("unsupported prometheus histogram bucket mode")
        body = prometheus(
            store,
            used_only=used_only,
            matches=matches,
            text_readouts="text_readouts" in parameters,
            histogram_buckets="summary" if mode == "summary" else "cumulative",
        )
        return StatsPage(200, _TEXT, body)
    listing = json if shape == "json" else text
    body = listing(
        store,
        kinds=kinds,
        used_only=used_only,
        matches=matches,
        histogram_buckets="summary" if mode in ("", "none") else mode,
    )
    return StatsPage(200, "application/json" if shape == "json" else _TEXT, body)


def _matcher(pattern: str, invert: bool, visible: Matches | None) -> Matches:
    """Raises ValueError, which says why, for what is no expression."""
    import re2  # 2 MB, of which most have no need

    options = re2.Options()
    options.log_errors = False
    try:
        search = re2.compile(pattern, options=options).search
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason) from None
    if visible is None:
        return lambda name: (search(name) is None) is invert
    return lambda name: (search(name) is None) is invert and visible(name)
