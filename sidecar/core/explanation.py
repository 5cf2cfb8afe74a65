"""What would become of a request, step by step: the words in which each stage tells how it decides.

A step is told by the code that decides, or by code beside it that asks the very same conditions one by one. Nothing is sent,
nothing is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

TAKEN: Final = "taken"
"""This is where the request goes on."""

PASSED_OVER: Final = "passed over"
"""A candidate that is not taken; ``text`` says by which condition."""

PASSES: Final = "passes"
"""A filter lets the request go on."""

ENDS: Final = "ends"
"""The request, or its connection, ends here: refused, redirected, answered."""

OPEN: Final = "open"
"""It cannot be told beforehand: somebody else is asked, or chance decides."""


@dataclass(frozen=True, slots=True)
class Step:
    """One decision. ``stage`` is one of the words of Envoy's configuration (``listener``, ``filter chain``, ``http filter``,
    ``route``, ...), ``name`` what has that name there, ``text`` a sentence, ``details`` further ones. ``metadata`` is that of
    the configuration, by which a control plane says what it was made from. ``facts`` are what a program goes on by: of a
    cluster its `endpoints` (`address`, `healthy`, `tls`, `alpn`, `serverName`), of a verdict that leads on the `request` as it
    leaves (`method`, `path`, `authority`, `headers`).
    """

    stage: str
    name: str
    outcome: str
    text: str
    details: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """With the fields' own names."""
        return {
            "stage": self.stage,
            "name": self.name,
            "outcome": self.outcome,
            "text": self.text,
            "details": list(self.details),
            "metadata": dict(self.metadata),
            "facts": dict(self.facts),
        }


def written(steps: Sequence[Step]) -> str:
    """As text: a line for each step, its details below it."""
    lines = []
    for step in steps:
        lines.append(step.text)
        lines += [f"    {detail}" for detail in step.details]
    return "".join(f"{line}\n" for line in lines)
