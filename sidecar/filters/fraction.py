"""Shares of requests, decided by chance: Envoy's ``FractionalPercent``."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from sidecar.config.core_types import Fraction


def always(fraction: Fraction) -> bool:
    """Whether every request is meant."""
    return fraction[0] >= fraction[1]


def compile_fraction(fraction: Fraction) -> Callable[[Random], bool]:
    """Whether the next request is among the fraction."""
    numerator, denominator = fraction
    if numerator <= 0:
        return lambda random: False
    if numerator >= denominator:
        return lambda random: True
    share = numerator / denominator
    return lambda random: random.random() < share
