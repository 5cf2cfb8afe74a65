"""What is wrong with a configuration: where, what, and what to do about it.

Nothing stops at the first problem. Whoever reads configuration records `Problem`s, and one `ConfigurationError` carries
all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why a configuration is refused.

    `file` is the name of the source as the user gave it, `line` and `column` count from 1 and are 0 where the place is
    not known, `path` is the field in protobuf names (`static_resources.listeners[0].name`), empty for the whole file.
    `problem` reads on after the path ("is required"), `what_to_do` is an instruction ("set it"), or empty.
    """

    file: str
    line: int
    column: int
    path: str
    problem: str
    what_to_do: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        path = f" {self.path}:" if self.path else ""
        to_do = f"; {self.what_to_do}" if self.what_to_do else ""
        return f"{place}:{path} {self.problem}{to_do}"


class ConfigurationError(Exception):
    """A configuration was refused. `problems` holds every reason, sorted by file and line; without a line, last."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        unique = dict.fromkeys(problems)
        self.problems: tuple[Problem, ...] = tuple(
            sorted(unique, key=lambda problem: (problem.file, problem.line or 1 << 62, problem.column))
        )
        super().__init__("\n".join(map(str, self.problems)))


Where = tuple[Any, str] | None
"""A place: the place around it, and what that adds to the path (`.name`, `[0]`, `["key"]`). Cheap to make."""


def path_of(where: Where) -> str:
    """The path that a place stands for."""
    labels = []
    while where is not None:
        labels.append(where[1])
        where = where[0]
    return "".join(reversed(labels)).removeprefix(".")


def key_label(key: object) -> str:
    """What a key of a map adds to a path."""
    return f"[{json.dumps(str(key))}]"


def did_you_mean(wrong: str, known: Iterable[str], otherwise: str = "") -> str:
    """The instruction that goes with an unknown name: the name most like it, or `otherwise` when none is."""
    from difflib import get_close_matches  # only for what is wrong

    matches = get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f"did you mean {matches[0]!r}?" if matches else otherwise
