"""Heads that are known by their shape: fields and index are made when somebody asks, which on the plain path nobody does.

Whoever changes a head does it through ``fields`` (the methods of ``Head`` do), so a head whose fields were never asked for
goes on as its shape says. A request from which a filter takes a field, or to which it adds one, becomes one of another
template, which is made once: the filter decides about each request, and only what the fields are then is known already.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from sidecar.core.characters import only
from sidecar.core.head import Field, RequestHead, ResponseHead

_MOST_DERIVED: Final = 64
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_TEXT: Final = only(bytes(range(0x20, 0x7F)))
"""What values consist of that filters may add here: with anything else the fields are made, and go the way of all others."""

OpenField = tuple[int, bytes, int]
"""Where an open field stands among the fields, its name, and which of the values it has."""


class Template:
    """The fields that heads of one shape have, with the places of the values, which are empty: they may be secrets.

    ``skipped`` are the numbers of values whose fields have been taken out, ``changed`` the names of these and of added fields.
    """

    __slots__ = ("_left", "changed", "fields", "index", "longer", "open", "repeats", "shorter", "skipped")

    def __init__(
        self,
        fields: list[Field],
        index: dict[bytes, bytes],
        open_fields: tuple[OpenField, ...],
        skipped: tuple[int, ...] = (),
        changed: frozenset[bytes] = frozenset(),
        left: list[int] | None = None,
    ) -> None:
        self.fields = fields = fields.copy()
        self.index = index = index.copy()
        for at, name, _ in open_fields:
            fields[at] = (name, b"")
            index[name] = b""
        self.open = open_fields
        self.repeats = len(index) != len(fields)
        self.skipped = skipped
        self.changed = changed
        self.shorter: dict[bytes, Template] = {}
        self.longer: dict[bytes, Template] = {}
        self._left = [_MOST_DERIVED] if left is None else left  # how many may be made yet of the one that all come from

    def with_field(self, name: bytes, value: bytes) -> Template:
        """The same with one more field at the end."""
        return Template(
            [*self.fields, (name, value)], {**self.index, name: value}, self.open, self.skipped, left=self._left
        )

    def without(self, name: bytes) -> Template | None:
        """The same without the field called ``name``, which it has; None if that is not to be had so simply."""
        if self.repeats or not self._may_be_changed():
            return None
        gone = next(at for at, field in enumerate(self.fields) if field[0] == name)
        fields = [field for at, field in enumerate(self.fields) if at != gone]
        index = {known: value for known, value in self.index.items() if known != name}
        left = tuple((at - (at > gone), known, number) for at, known, number in self.open if at != gone)
        skipped = tuple(sorted((*self.skipped, *(number for at, _, number in self.open if at == gone))))
        made = self.shorter[name] = Template(fields, index, left, skipped, self.changed | {name}, self._left)
        return made

    def with_open(self, name: bytes, number: int) -> Template | None:
        """The same with an open field at the end, whose value is the last, number ``number``; None as for ``without``."""
        if self.repeats or name in self.index or not _NAME.fullmatch(name) or not self._may_be_changed():
            return None
        opened = (*self.open, (len(self.fields), name, number))
        fields = [*self.fields, (name, b"")]
        made = self.longer[name] = Template(
            fields, self.index, opened, self.skipped, self.changed | {name}, self._left
        )  # fmt: skip
        return made

    def _may_be_changed(self) -> bool:
        self._left[0] -= 1
        return self._left[0] >= 0

    def skips(self) -> tuple[dict[int, int], int]:
        """How many values that are not wanted come before that of each place, where there are some, and after all."""
        before: dict[int, int] = {}
        done = 0
        for at, _, number in self.open:
            count = sum(one < number for one in self.skipped)
            if count > done:
                before[at], done = count - done, count
        return before, len(self.skipped) - done

    def filled_fields(self, values: Sequence[bytes]) -> list[Field]:
        fields = self.fields.copy()
        for at, name, number in self.open:
            fields[at] = (name, values[number])
        return fields

    def filled_index(self, values: Sequence[bytes]) -> dict[bytes, bytes]:
        index = self.index.copy()
        for _, name, number in self.open:
            index[name] = values[number]
        return index

    def __repr__(self) -> str:
        return f"<Template of {len(self.fields)} fields, {len(self.open)} open>"


class _OfTemplate(RequestHead):
    """What filters do to a head whose fields nobody has made: it has another template afterwards."""

    __slots__ = ("eager", "made_fields", "template", "values")

    template: Template
    values: Sequence[bytes]
    made_fields: list[Field] | None

    def set(self, name: bytes, value: bytes) -> None:
        if name in self.index:
            RequestHead.set(self, name, value)
        else:
            self.add(name, value)

    def add(self, name: bytes, value: bytes) -> None:
        if self.made_fields is None and value.translate(_TEXT) == value:
            template = self.template
            longer = template.longer.get(name) or template.with_open(name, len(self.values))
            if longer is not None:
                self.index[name] = value
                self.values = (*self.values, value)
                self.template = longer
                return
        RequestHead.add(self, name, value)

    def remove(self, name: bytes) -> bool:
        if self.made_fields is None:
            index = self.index
            if name not in index:
                return False
            template = self.template
            shorter = template.shorter.get(name) or template.without(name)
            if shorter is not None:
                del index[name]
                self.template = shorter
                return True
        return RequestHead.remove(self, name)

    def remove_all(self, names: Iterable[bytes]) -> None:
        index = self.index
        for name in names:
            if name in index:
                self.remove(name)


class ShapedRequestHead(_OfTemplate):
    """A request's head as a template and values."""

    __slots__ = ("made_index",)

    def __init__(self, method: bytes, authority: bytes, scheme: bytes, template: Template) -> None:
        self.eager = False
        self.method = method
        self.path = b""
        self.authority = authority
        self.scheme = scheme
        self.version = 11
        self.names = None
        self.template = template
        self.values: Sequence[bytes] = ()
        self.made_fields: list[Field] | None = None
        self.made_index: dict[bytes, bytes] | None = None

    @property
    def repeats(self) -> bool:
        if self.made_fields is None:
            return self.template.repeats
        return len(self.index) != len(self.made_fields)

    @property
    def fields(self) -> list[Field]:
        fields = self.made_fields
        if fields is None:
            fields = self.made_fields = self.template.filled_fields(self.values)
        return fields

    @fields.setter
    def fields(self, fields: list[Field]) -> None:
        self.made_fields = fields

    @property
    def index(self) -> dict[bytes, bytes]:
        index = self.made_index
        if index is None:
            index = self.made_index = self.template.filled_index(self.values)
        return index

    @index.setter
    def index(self, index: dict[bytes, bytes]) -> None:
        self.made_index = index


class IndexedRequestHead(_OfTemplate):
    """The same where routes, filters or logs look at fields by name: whoever fills it in makes the index, too."""

    __slots__ = ("repeats",)

    def __init__(self, method: bytes, authority: bytes, scheme: bytes, template: Template) -> None:
        self.eager = True  # the index is made whenever values are set
        self.method = method
        self.path = b""
        self.authority = authority
        self.scheme = scheme
        self.version = 11
        self.names = None
        self.index = {}
        self.template = template
        self.repeats = template.repeats  # type: ignore[misc]
        self.values: Sequence[bytes] = ()
        self.made_fields: list[Field] | None = None

    @property
    def fields(self) -> list[Field]:
        fields = self.made_fields
        if fields is None:
            fields = self.made_fields = self.template.filled_fields(self.values)
            self.repeats = True  # type: ignore[misc]  # a slot here; and from now on it may be so
        return fields

    @fields.setter
    def fields(self, fields: list[Field]) -> None:
        self.made_fields = fields
        self.repeats = True  # type: ignore[misc]


class ShapedResponseHead(ResponseHead):
    """A response's head as a template and values."""

    __slots__ = ("made_fields", "made_index", "template", "values")

    def __init__(self, status: int, reason: bytes, version: int, template: Template) -> None:
        self.status = status
        self.reason = reason
        self.version = version
        self.names = None
        self.template = template
        self.values: Sequence[bytes] = ()
        self.made_fields: list[Field] | None = None
        self.made_index: dict[bytes, bytes] | None = None

    @property
    def repeats(self) -> bool:
        if self.made_fields is None:
            return self.template.repeats
        return len(self.index) != len(self.made_fields)

    @property
    def fields(self) -> list[Field]:
        fields = self.made_fields
        if fields is None:
            fields = self.made_fields = self.template.filled_fields(self.values)
        return fields

    @fields.setter
    def fields(self, fields: list[Field]) -> None:
        self.made_fields = fields

    @property
    def index(self) -> dict[bytes, bytes]:
        index = self.made_index
        if index is None:
            index = self.made_index = self.template.filled_index(self.values)
        return index

    @index.setter
    def index(self, index: dict[bytes, bytes]) -> None:
        self.made_index = index
