"""Heads that are known by their shape: fields and index are made when somebody asks, which on the plain path nobody does.

Whoever changes a head does it through ``fields`` (the methods of ``Head`` do), so a head whose fields were never asked for
goes on as its shape says.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.core.head import Field, RequestHead, ResponseHead

OpenField = tuple[int, bytes, int]
"""Where an open field stands among the fields, its name, and which of the values it has."""


class Template:
    """The fields that heads of one shape have, with the places of the values, which are empty: they may be secrets."""

    __slots__ = ("fields", "index", "open", "repeats")

    def __init__(self, fields: list[Field], index: dict[bytes, bytes], open_fields: tuple[OpenField, ...]) -> None:
        self.fields = fields = fields.copy()
        self.index = index = index.copy()
        for at, name, _ in open_fields:
            fields[at] = (name, b"")
            index[name] = b""
        self.open = open_fields
        self.repeats = len(index) != len(fields)

    def with_field(self, name: bytes, value: bytes) -> Template:
        """The same with one more field at the end."""
        return Template([*self.fields, (name, value)], {**self.index, name: value}, self.open)

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


class ShapedRequestHead(RequestHead):
    """A request's head as a template and values."""

    __slots__ = ("eager", "made_fields", "made_index", "template", "values")

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


class IndexedRequestHead(RequestHead):
    """The same where routes, filters or logs look at fields by name: whoever fills it in makes the index, too."""

    __slots__ = ("eager", "made_fields", "repeats", "template", "values")

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
