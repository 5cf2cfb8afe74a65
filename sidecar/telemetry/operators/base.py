"""What a command is made of, and what a format may know beyond the stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..format_code import Value
from ..format_syntax import Command


def _no_metadata(cluster_name: str) -> Mapping[str, Mapping[str, Any]] | None:
    return None


def _same_name(cluster_name: str) -> str:
    return cluster_name


@dataclass(frozen=True, slots=True)
class FormatContext:
    """What formats know that the stream does not say.

    `access_log_type` is Envoy's name of the kind of entry (`DownstreamEnd`, `TcpConnectionEnd`); the two functions take
    a cluster's name: its metadata, and its `alt_stat_name` or else its name; None when there is no such cluster.
    """

    access_log_type: str = "NotSet"
    cluster_metadata: Callable[[str], Mapping[str, Mapping[str, Any]] | None] = _no_metadata
    cluster_stat_name: Callable[[str], str | None] = _same_name


NO_CONTEXT = FormatContext()

Make = Callable[[Command, FormatContext], Value]


@dataclass(frozen=True, slots=True)
class Operator:
    """How a command becomes a value, and whether it takes arguments and a length."""

    make: Make
    arguments: Literal["none", "optional", "required"] = "none"
    length: bool = False


def plain(value: Value) -> Operator:
    """A command without arguments."""
    return Operator(lambda command, context: value)
