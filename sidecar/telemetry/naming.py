"""How Prometheus wants names and labels written (`Envoy::Server::PrometheusStatsFormatter`)."""

from __future__ import annotations

import re

Tag = tuple[str, str]
"""A tag's name and its value: `("envoy.cluster_name", "backend")`."""

_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_]")


def sanitized_metric(name: str) -> str:
    """`name` with every character that Prometheus does not allow as an underscore."""
    return _NOT_IN_A_NAME.sub("_", name)


def metric_name(tag_extracted_name: str) -> str:
    """Envoy's name for a metric: `envoy_cluster_upstream_rq_total`."""
    return "envoy_" + sanitized_metric(tag_extracted_name)


def label_pairs(tags: tuple[Tag, ...]) -> str:
    """`name="value"` of each tag, with commas between them."""
    return ",".join(f'{sanitized_metric(name)}="{_escaped(value)}"' for name, value in tags)


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value


class Labels:
    """The labels of a group's series, ready to be put behind a metric's name.

    `whole` is the text with braces and the space before the value, `start` the pairs with a comma behind them, to
    which `le="..."` is added, `end` the pairs with a comma before them, to be put after a response code.
    """

    __slots__ = ("end", "start", "whole")

    def __init__(self, tags: tuple[Tag, ...]) -> None:
        pairs = label_pairs(tags)
        self.whole = f"{{{pairs}}} "
        self.start = pairs + "," if pairs else ""
        self.end = "," + pairs if pairs else ""

    def __repr__(self) -> str:
        return f"<Labels {self.whole}>"
