"""Which fields of Envoy's API the builders in ``sidecar/config/`` read: found by letting them read, not by hand.

Every builder asks ``Node`` for the fields that it implements. Here the messages are empty at first, and what a builder
asks for is filled in at that moment (by chance: which member of a oneof, which enum value, which extension), so that it
asks on. What was never asked for in all those runs is what the sidecar refuses.

``python -m tests.docs.implemented`` writes the result into docs/configuration.md.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from sidecar.config.bootstrap import parse_bootstrap
from sidecar.config.extensions import message_class
from sidecar.config.fields import Context, Node
from sidecar.config.problems import ConfigurationError
from tests.running import REPOSITORY

PAGE = REPOSITORY / "docs" / "configuration.md"
BEGIN, END = "<!-- fields: written by python -m tests.docs.implemented -->\n", "<!-- end of fields -->\n"
RUNS = 2000
_DEPTH = 45  # of the path: deep enough for matchers in routes, and an end for what contains itself
_TEXTS = ("a", "b", "/a", "127.0.0.1", "10", "%PROTOCOL%")
_PLAIN = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.Any"})
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
        return 1

    def fill(self, node: Node, name: str) -> None:
        message: Any = node.message
        descriptor = message.DESCRIPTOR.fields_by_name.get(name)
        if descriptor is None or _HAS(node, name) or node.path.count(".") > _DEPTH or self.random.random() < 0.15:
            return
        oneof = descriptor.containing_oneof
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
            if kind.full_name.startswith("google.protobuf.") and kind.full_name not in _PLAIN:
                setattr(value, "seconds" if "seconds" in kind.fields_by_name else "value", self._wrapped(kind))

    def _wrapped(self, kind: Any) -> Any:
        return 1 if "seconds" in kind.fields_by_name else self.scalar(kind.fields_by_name["value"])

    def choose(self, node: Node, oneof: str) -> None:
        message: Any = node.message
        if message.WhichOneof(oneof) is None:
            self.fill(node, self.random.choice(message.DESCRIPTOR.oneofs_by_name[oneof].fields).name)

    def pack(self, packed: Any, known: Iterable[str] | None) -> None:
        names = sorted(known or ())
        if names and not packed.type_url:
            packed.Pack(message_class(self.random.choice(names))())


def look(runs: int = RUNS) -> Found:
    """Let the builders read ``runs`` bootstraps. Repeatable: chance has a fixed seed."""
    found = Found()
    for seed in range(runs):
        _look_once(_Filling(seed, found))
    return found


def _look_once(filling: _Filling) -> None:
    found = filling.found
    ignoring: list[str] = []
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
        if name is not None and problem.startswith("is not implemented"):
            found.refused[self.type_name].add(name)
        refuse(self, problem, name, do)

    def new_unpack(self: Node, known: list[str] | None) -> Node | None:
        found.extensions.update(known or ())
        filling.pack(self.message, known)
        return unpack(self, known)

    root = Node(message_class("envoy.config.bootstrap.v3.Bootstrap")(), "", Context())
    with (
        patch.multiple(
            Node, _take=new_take, which=new_which, ignore=new_ignore, refuse=new_refuse, _unpack=new_unpack,
            has=new_has,
        ),
        suppress(ConfigurationError),
    ):  # fmt: skip
        parse_bootstrap(root)


def refused(found: Found, message: str) -> list[str]:
    """The fields of a message that nothing reads, but for deprecated ones."""
    read = (found.read[message] | found.ignored[message]) - found.refused[message]
    fields = message_class(message).DESCRIPTOR.fields
    return [one.name for one in fields if one.name not in read and not one.GetOptions().deprecated]


def render(found: Found) -> str:
    """What stands in the documentation between the two marks."""
    messages = [name for name in sorted({*found.read, *found.ignored}) if not name.startswith("google.")]
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
