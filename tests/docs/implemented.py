"""Which fields of Envoy's API the builders in ``sidecar/config/`` read: found by letting them read, not by hand.

Every builder asks ``Node`` for the fields that it implements. Here the messages are empty at first, and what a builder
asks for is filled in at that moment, so that it asks on: of the members of a oneof and of the extensions the one that had
its turn least often, enum values by chance. What was never asked for in all those runs is what the sidecar refuses.

``python -m tests.docs.implemented`` writes the result into docs/configuration.md.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from sidecar.config.bootstrap import parse_bootstrap
from sidecar.config.extensions import message_class, type_name_of
from sidecar.config.fields import Context, Node
from sidecar.config.problems import ConfigurationError
from tests.running import REPOSITORY

PAGE = REPOSITORY / "docs" / "configuration.md"
BEGIN, END = "<!-- fields: written by python -m tests.docs.implemented -->\n", "<!-- end of fields -->\n"
RUNS = 2000
_DEPTH = 45  # of the path: deep enough for matchers in routes, and an end for what contains itself
_TEXTS = ("a", "b", "/a", "127.0.0.1", "10", "%PROTOCOL%")
_PLAIN = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.Any", "google.protobuf.Empty"})
_NETWORK = "envoy.extensions.filters.network"
_CEL = "google.api.expr.v1alpha1"  # an expression is filled in as a whole: those within it are without end
_SHARES = {"envoy.type.v3.FractionalPercent": ("numerator", 7), "envoy.type.v3.Percent": ("value", 7.0)}
_RICH = {f"{_NETWORK}.http_connection_manager.v3.HttpConnectionManager": 8, "route": 4}
"""What has its turn more often, for most of the fields stand inside."""
_HAS = Node.has


@dataclass
class Found:
    """By the full name of a message: the fields that are read, those that are accepted without effect (in some of its
    uses, when they are read too), those that are refused by name. And the types known as ``typed_config``.
    """

    read: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    ignored: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    refused: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    extensions: set[str] = field(default_factory=set)

    turns: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each member of a oneof, and each extension, was chosen."""

    def next_of(self, kind: str, names: Iterable[str], chance: random.Random) -> str:
        """One of these that was chosen least often."""
        least = min(names, key=lambda name: (self.turns[kind, name] // _RICH.get(name, 1), chance.random()))
        self.turns[kind, least] += 1
        return least


class _Filling:
    """Fills in what is asked for."""

    def __init__(self, seed: int, found: Found) -> None:
        self.random = random.Random(seed)
        self.found = found

    def scalar(self, descriptor: Any) -> Any:
        chance = self.random
        if descriptor.enum_type is not None:
            return chance.choice(descriptor.enum_type.values).number
        if descriptor.cpp_type == descriptor.CPPTYPE_STRING:
            text = chance.choice(_TEXTS)
            return text.encode() if descriptor.type == descriptor.TYPE_BYTES else text
        if descriptor.cpp_type == descriptor.CPPTYPE_BOOL:
            return chance.random() < 0.7
        return chance.randint(1, 3)

    def fill(self, node: Node, name: str, *, chosen: bool = False) -> None:
        message: Any = node.message
        descriptor = message.DESCRIPTOR.fields_by_name.get(name)
        if descriptor is None or _HAS(node, name) or node.path.count(".") > _DEPTH or node.type_name.startswith(_CEL):
            return
        oneof = descriptor.containing_oneof
        if self.random.random() < 0.15 or (oneof is not None and not chosen and not self._has_turn(node, name, oneof)):
            return
        if oneof is not None and message.WhichOneof(oneof.name) is not None:
            return
        value = getattr(message, name)
        kind = descriptor.message_type
        if kind is not None and kind.GetOptions().map_entry:
            entry = kind.fields_by_name["value"]
            key = self.scalar(kind.fields_by_name["key"])
            if entry.message_type is None:
                value[key] = self.scalar(entry)
            else:
                value.get_or_create(key)
        elif descriptor.is_repeated:
            if kind is None:
                value.append(self.scalar(descriptor))
            else:
                value.add()
        elif kind is None:
            setattr(message, name, self.scalar(descriptor))
        else:
            value.SetInParent()
            if kind.full_name == f"{_CEL}.Expr":
                value.const_expr.bool_value = self.random.random() < 0.5
            elif kind.full_name == f"{_CEL}.CheckedExpr":
                value.expr.const_expr.bool_value = self.random.random() < 0.5
            elif kind.full_name == "google.protobuf.Struct":
                value["a"] = self.random.choice((5, True))
            elif kind.full_name in _SHARES:
                setattr(value, *_SHARES[kind.full_name])
            elif kind.full_name.startswith("envoy.config.core.v3.Runtime"):
                value.runtime_key = "a"
                self._set_default(value)
            elif kind.full_name.startswith("google.protobuf.") and kind.full_name not in _PLAIN:
                setattr(value, "seconds" if "seconds" in kind.fields_by_name else "value", self._wrapped(kind))

    def _has_turn(self, node: Node, name: str, oneof: Any) -> bool:
        """Whether no other member of the oneof that is ever asked for had fewer turns; it is its turn then."""
        kind, turns = node.type_name, self.found.turns
        asked = [one.name for one in oneof.fields if one.name in self.found.read[kind]]
        if any(turns[kind, other] < turns[kind, name] for other in asked):
            return False
        turns[kind, name] += 1
        return True

    def _set_default(self, runtime: Any) -> None:
        descriptor = runtime.DESCRIPTOR.fields_by_name["default_value"]
        if descriptor.message_type is None:
            runtime.default_value = self.scalar(descriptor)
        elif descriptor.message_type.full_name in _SHARES:
            setattr(runtime.default_value, *_SHARES[descriptor.message_type.full_name])
        else:
            runtime.default_value.value = self.random.random() < 0.5

    def _wrapped(self, kind: Any) -> Any:
        return (
            self.random.randint(1, 3) if "seconds" in kind.fields_by_name else self.scalar(kind.fields_by_name["value"])
        )

    def choose(self, node: Node, oneof: str) -> None:
        message: Any = node.message
        if message.WhichOneof(oneof) is None:
            names = [one.name for one in message.DESCRIPTOR.oneofs_by_name[oneof].fields]
            self.fill(node, self.found.next_of(node.type_name, names, self.random), chosen=True)

    def pack(self, packed: Any, known: Iterable[str] | None) -> None:
        names = sorted(known or ())
        if names and not packed.type_url:
            packed.Pack(message_class(self.found.next_of("", names, self.random))())


def look(runs: int = RUNS) -> Found:
    """Let the builders read ``runs`` bootstraps. Repeatable: chance has a fixed seed."""
    found = Found()
    for seed in range(runs):
        fill(seed, found)
    return found


def fill(seed: int, found: Found) -> Any:
    """The ``Bootstrap`` message that the builders read in one run."""
    filling = _Filling(seed, found)
    ignoring: list[str] = []
    unpacked: list[tuple[Any, Any]] = []
    take, which, ignore, refuse, unpack = Node._take, Node.which, Node.ignore, Node.refuse, Node._unpack

    def new_take(self: Node, name: str) -> Any:
        if ignoring != [name]:
            found.read[self.type_name].add(name)
        filling.fill(self, name)
        return take(self, name)

    def new_which(self: Node, oneof: str) -> str | None:
        filling.choose(self, oneof)
        return which(self, oneof)

    def new_has(self: Node, name: str) -> bool:
        filling.fill(self, name)
        return _HAS(self, name)

    def new_ignore(self: Node, name: str, why: str) -> None:
        found.ignored[self.type_name].add(name)
        ignoring.append(name)
        ignore(self, name, why)
        ignoring.clear()

    def new_refuse(self: Node, problem: str, name: str | None = None, do: str | None = None) -> None:
        if name is not None and problem.startswith("is not implemented") and do != "remove it":  # but by `settle`
            found.refused[self.type_name].add(name)
        refuse(self, problem, name, do)

    def new_unpack(self: Node, known: list[str] | None, structs: bool) -> Node | None:
        found.extensions.update(known or ())
        filling.pack(self.message, known)
        inside = unpack(self, known, structs)
        if inside is not None and inside.type_name == type_name_of(self.message.type_url):
            unpacked.append((self.message, inside.message))
        return inside

    root = Node(message_class("envoy.config.bootstrap.v3.Bootstrap")(), "", Context())
    with (
        patch.multiple(
            Node, _take=new_take, which=new_which, ignore=new_ignore, refuse=new_refuse, _unpack=new_unpack,
            has=new_has,
        ),
        suppress(ConfigurationError),
    ):  # fmt: skip
        parse_bootstrap(root)
    for packed, inside in reversed(unpacked):
        packed.Pack(inside)
    return root.message


def refused(found: Found, message: str) -> list[str]:
    """The fields of a message that nothing reads, but for deprecated ones."""
    read = (found.read[message] | found.ignored[message]) - found.refused[message]
    fields = message_class(message).DESCRIPTOR.fields
    return [one.name for one in fields if one.name not in read and not one.GetOptions().deprecated]


def render(found: Found) -> str:
    """What stands in the documentation between the two marks."""
    messages = [
        name for name in sorted({*found.read, *found.ignored, *found.extensions}) if not name.startswith("google.")
    ]
    whole, partly = [], []
    for name in messages:
        ignored, missing = sorted(found.ignored[name] - found.read[name]), refused(found, name)
        if ignored or missing:
            partly.append(f"| `{name}` | {_list(ignored)} | {_list(missing)} |")
        else:
            whole.append(f"- `{name}`")
    extensions = [f"- `{name}`" for name in sorted(found.extensions)]
    return "\n".join(
        [
            "### Extensions", "", "These types are known as `typed_config`:", "", *extensions, "",
            "### Messages of which parts are refused", "",
            "| message | accepted without effect | refused |", "|---|---|---|", *partly, "",
            "### Messages that are implemented as a whole", "", *whole, "",
        ]
    )  # fmt: skip


def _list(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def main() -> None:
    """Write the page anew."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + render(look()) + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
