"""The runtime's keys that `layered_runtime` gives a value. Nothing changes them while the sidecar runs.

Fields with a `runtime_key` therefore have their value when the configuration is built: the key's, or their default.
What a value is good for depends on its form, as in Envoy: numbers may stand in strings, a percentage may be a number or
a FractionalPercent, and what does not fit counts as not there. Source: Envoy's "Runtime" reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

_DENOMINATORS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000, 0: 100, 1: 10_000, 2: 1_000_000}


class Runtime:
    """The values by their dotted keys, and which of the keys were asked for."""

    __slots__ = ("used", "values")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.used: set[str] = set()

    def number(self, key: str) -> float | None:
        """For RuntimeDouble and RuntimePercent."""
        value = self._value(key)
        if isinstance(value, str):
            return _number(value)
        return None if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)

    def integer(self, key: str) -> int | None:
        """For RuntimeUInt32: what stands behind the point is cut off, and numbers below 0 are none."""
        value = self.number(key)
        return None if value is None or value < 0 or not isfinite(value) else int(value)

    def flag(self, key: str) -> bool | None:
        """For RuntimeFeatureFlag."""
        value = self._value(key)
        if isinstance(value, str):
            return {"true": True, "false": False}.get(value.lower())
        return value if isinstance(value, bool) else None

    def fraction(self, key: str) -> tuple[int, int] | None:
        """For RuntimeFractionalPercent, as (numerator, denominator)."""
        value = self._value(key)
        if isinstance(value, dict):
            return int(value.get("numerator", 0)), _DENOMINATORS.get(value.get("denominator", 0), 100)
        percent = self.integer(key)
        return None if percent is None else (min(percent, 100), 100)

    def _value(self, key: str) -> Any:
        if key:
            self.used.add(key)
        return self.values.get(key)


def _number(text: str) -> float | None:
    try:
        return float.fromhex(text) if "0x" in text.lower() else float(text.replace("_", "?"))
    except ValueError:
        return None
