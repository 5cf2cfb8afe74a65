"""Expressions that choose what is logged: the part of CEL that becomes Envoy's own filters.

Comparisons of `response.code` with numbers, joined by `&&`, `||` and parentheses.
Source: https://istio.io/latest/docs/reference/config/telemetry/#AccessLogging-Filter
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

_TOKEN = re.compile(r"\s*(&&|\|\||\(|\)|response\.code\s*(==|!=|>=|<=|>|<)\s*(\d{1,6}))\s*")
_MIRRORED = {">": (">=", 1), "<": ("<=", -1)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The status of the response compared with a number: `==`, `!=`, `>=` or `<=`."""

    operator: str
    value: int


@dataclass(frozen=True, slots=True)
class Joined:
    """All (`&&`) or any (`||`) of several conditions."""

    operator: str
    parts: tuple[LogCondition, ...]


LogCondition: TypeAlias = Comparison | Joined


def parse_log_filter(expression: str) -> LogCondition:
    """The condition that an expression says. Raises ValueError for what is not understood."""
    tokens: list[str | Comparison] = []
    end = 0
    while end < len(expression):
        found = _TOKEN.match(expression, end)
        if found is None:
            raise ValueError(f'"{expression[end:].strip()[:40]}" is not understood')
        end = found.end()
        if found[2]:
            operator, add = _MIRRORED.get(found[2], (found[2], 0))
            tokens.append(Comparison(operator, max(0, int(found[3]) + add)))
        else:
            tokens.append(found[1])
    condition, rest = _either(tokens)
    if rest:
        raise ValueError(f'"{rest[0]}" is not expected there')
    return condition


def _either(tokens: Sequence[str | Comparison]) -> tuple[LogCondition, Sequence[str | Comparison]]:
    return _joined(tokens, "||")


def _joined(tokens: Sequence[str | Comparison], operator: str) -> tuple[LogCondition, Sequence[str | Comparison]]:
    parts = []
    while True:
        part, tokens = _joined(tokens, "&&") if operator == "||" else _one(tokens)
        parts.append(part)
        if not tokens or tokens[0] != operator:
            return (parts[0] if len(parts) == 1 else Joined(operator, tuple(parts))), tokens
        tokens = tokens[1:]


def _one(tokens: Sequence[str | Comparison]) -> tuple[LogCondition, Sequence[str | Comparison]]:
    if not tokens:
        raise ValueError("it ends where a condition is expected")
    first = tokens[0]
    if isinstance(first, Comparison):
        return first, tokens[1:]
    if first == "(":
        condition, rest = _either(tokens[1:])
        if rest and rest[0] == ")":
            return condition, rest[1:]
        raise ValueError("a parenthesis is not closed")
    raise ValueError(f'"{first}" is not expected there')
