"""What is learnt while one source of configuration is built: problems, warnings, names and who refers to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol

from sidecar.config.problems import ConfigurationError, Problem, did_you_mean, key_label
from sidecar.config.runtime import Runtime


class Placed(Protocol):
    """A message with a place, as `fields.Node` is."""

    @property
    def path(self) -> str:
        """The place of the message in its source."""

    def path_of(self, field: str | None) -> str:
        """The place of one of its fields, or its own for None."""

    def settle(self) -> None:
        """Refuse what was not read in it."""


class FormatProblem(Protocol):
    """What is wrong with a format string: the offset in it, the reason and what to do about it."""

    position: int
    reason: str
    what_to_do: str


FindFormatProblems = Callable[[str], Sequence[FormatProblem]]


def take_every_format(format: str) -> Sequence[FormatProblem]:
    """For configuration that is looked at without the commands of format strings."""
    return ()


class Context:
    """What is learnt while one source of configuration is built: problems, warnings, names and who refers to them.

    `source` names the file. `locate` gives the (file, line, column) of a path, and is
    asked only for paths with a problem. `find_format_problems` knows the commands of format strings. `runtime` answers
    for the fields with a runtime key, once the bootstrap's layers are read. `ignored` is what sources share that together
    say once only that a field is ignored.
    As a context manager it finishes at the end of the block; an exception that building raises while there already are
    problems (half-built values) gives way to those problems.
    """

    def __init__(
        self,
        source: str = "configuration",
        locate: Callable[[str], tuple[str, int, int]] | None = None,
        find_format_problems: FindFormatProblems = take_every_format,
        ignored: set[tuple[str, str]] | None = None,
    ) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self._locate = locate
        self._find_format_problems = find_format_problems
        self.runtime = Runtime({})
        self.local_cluster_name = ""  # of the cluster that the proxy itself belongs to
        self.has_ads = True  # a bootstrap without `ads_config` says so
        self.discovers_clusters = False  # while it runs
        self._roots: list[Placed] = []
        self._names: dict[str, dict[str, str]] = {}
        self._known: dict[str, Collection[str]] = {}
        self._references: list[tuple[str, str, str]] = []
        self._said: set[tuple[str, str]] = set()
        self._ignored: set[tuple[str, str]] = set() if ignored is None else ignored

    def refuse(self, path: str, problem: str, do: str = "") -> None:
        """Record that the field at `path` has a problem, and what to do about it. Said once for the same words."""
        if (path, problem) not in self._said:
            self._said.add((path, problem))
            self.problems.append(Problem(self.source, 0, 0, path, problem, do))

    def check_format(self, path: str, format: Any) -> None:
        """Refuse what is wrong in a format string, or in the strings of a JSON format, which stands at `path`."""
        if isinstance(format, str):
            for found in self._find_format_problems(format) if "%" in format else ():
                self.refuse(path, f"is wrong at offset {found.position}: {found.reason}", found.what_to_do)
        elif isinstance(format, dict):
            for key, value in format.items():
                self.check_format(path + key_label(key), value)
        elif isinstance(format, (list, tuple)):
            for position, value in enumerate(format):
                self.check_format(f"{path}[{position}]", value)

    def warn(self, path: str, warning: str) -> None:
        """Record something that the operator should know and that stops nothing."""
        self.warnings.append(f"{self.source}: {path}: {warning}")

    def declare(self, kind: str, name: str, node: Placed, field: str = "name") -> None:
        """Say that `node` defines the `kind` ("cluster", "listener", ...) called `name`; a second one is a problem."""
        names = self._names.setdefault(kind, {})
        if name in names:
            self.refuse(
                node.path_of(field), f"another {kind} is called {name!r} too ({names[name]})", "give each its own name"
            )
        else:
            names[name] = node.path

    def reference(
        self, kind: str, name: str, node: Placed, field: str | None = None, *, may_come_later: bool = False
    ) -> None:
        """Say that `node` (its `field`, if given) needs the `kind` called `name`; `finish` refuses a dangling one.

        A cluster that `may_come_later` need not be there where clusters are discovered.
        """
        if not (may_come_later and self.discovers_clusters):
            self._references.append((kind, name, node.path_of(field)))

    def know(self, kind: str, names: Collection[str]) -> None:
        """Say that these of a `kind` are there already: the source may refer to them, and to its own."""
        self._known[kind] = names

    def names(self, kind: str) -> frozenset[str]:
        """The names declared so far for a kind."""
        return frozenset(self._names.get(kind, ()))

    def finish(self) -> None:
        """Refuse what no builder read and what refers to nothing. Raises ConfigurationError with all problems."""
        for root in self._roots:
            root.settle()
        self._roots.clear()
        for kind, name, path in self._references:
            known: Collection[str] = self._names.get(kind, {})
            others = self._known.get(kind, ())
            if name not in known and name not in others:
                known = (*known, *others)
                advice = did_you_mean(name, known, f"define it, or name a {kind} that is there")
                self.refuse(path, f"there is no {kind} called {name!r}", advice)
        self._references.clear()
        self.raise_problems()

    def raise_problems(self) -> None:
        """Raise ConfigurationError with the problems recorded so far, each with its line; do nothing without any."""
        if self.problems:
            raise ConfigurationError(map(self._located, self.problems))

    def _located(self, problem: Problem) -> Problem:
        if problem.line or self._locate is None:
            return problem
        file, line, column = self._locate(problem.path)
        return replace(problem, file=file, line=line, column=column)

    def adopt(self, root: Placed) -> None:
        """Take on a message that `finish` is to settle."""
        self._roots.append(root)

    def first_ignored(self, type_name: str, field: str) -> bool:
        """Whether this is the first message of its type of which `field` is ignored."""
        key = (type_name, field)
        if key in self._ignored:
            return False
        self._ignored.add(key)
        return True

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, Exception) and not isinstance(error, ConfigurationError):
            self.raise_problems()
