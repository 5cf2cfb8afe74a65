"""Message heads: the one header list that travels through the whole path, with an index for lookups.

A head keeps its fields as one list of ``(name, value)`` pairs of bytes, names in lower case, in the order of the wire.
The index maps each name to its value; several fields of one name are joined by a comma there, which is how Envoy
matches them and how RFC 9110 section 5.3 lets a recipient combine them. The index is made by one C call per head
and kept in step by the methods here: nobody else changes either.
"""

from __future__ import annotations

from collections.abc import Iterable

Field = tuple[bytes, bytes]


def index_of(fields: list[Field]) -> dict[bytes, bytes]:
    """The lookup table over ``fields``: values of a repeated name joined by a comma (RFC 9110 section 5.3)."""
    index: dict[bytes, bytes] = {}
    for name, value in fields:
        index[name] = index[name] + b"," + value if name in index else value
    return index


class Head:
    """The fields of a message, and the operations that keep list and index in step."""

    __slots__ = ("fields", "index")

    fields: list[Field]
    index: dict[bytes, bytes]

    def get(self, name: bytes) -> bytes | None:
        """The value of ``name`` (lower case), repeated fields joined by a comma, or None."""
        return self.index.get(name)

    @property
    def repeats(self) -> bool:
        """Whether any name occurs more than once."""
        return len(self.index) != len(self.fields)

    def get_all(self, name: bytes) -> list[bytes]:
        """Every value of ``name``, in the order of the wire."""
        if name not in self.index:
            return []
        return [value for field, value in self.fields if field == name]

    def set(self, name: bytes, value: bytes) -> None:
        """Make ``name`` occur exactly once, with ``value``: in the first place where it stood, or at the end."""
        fields = self.fields
        index = self.index
        if name not in index:
            fields.append((name, value))
        else:
            if len(fields) == len(index):
                fields[fields.index((name, index[name]))] = (name, value)
            else:
                at = [pair[0] for pair in fields].index(name)
                fields[at] = (name, value)
                fields[at + 1 :] = [pair for pair in fields[at + 1 :] if pair[0] != name]
        index[name] = value

    def add(self, name: bytes, value: bytes) -> None:
        """Append a field, whether ``name`` occurs already or not."""
        index = self.index
        self.fields.append((name, value))
        index[name] = index[name] + b"," + value if name in index else value

    def remove(self, name: bytes) -> bool:
        """Remove every field of ``name``; True if there was one."""
        if self.index.pop(name, None) is None:
            return False
        self.fields[:] = [pair for pair in self.fields if pair[0] != name]
        return True

    def remove_all(self, names: Iterable[bytes]) -> None:
        """Remove every field whose name is among ``names``."""
        index = self.index
        gone = [name for name in names if index.pop(name, None) is not None]
        if gone:
            self.fields[:] = [pair for pair in self.fields if pair[0] not in gone]


class RequestHead(Head):
    """A request line and its fields. ``authority`` is what Host or :authority said; neither stands among the fields.

    ``path`` is the target in origin form with its query, ``*`` for OPTIONS, empty for CONNECT; ``version`` is 10, 11 or
    20 for the protocol that it came by. ``names`` maps lower-case names to their spelling when header case is kept.
    ``url_scheme`` is the scheme of a URL in a request line of HTTP/1.1; where there was none it is not set at all.
    """

    __slots__ = ("authority", "method", "names", "path", "scheme", "url_scheme", "version")

    url_scheme: bytes

    def __init__(
        self,
        method: bytes,
        path: bytes,
        authority: bytes,
        fields: list[Field],
        version: int = 11,
        scheme: bytes = b"http",
    ) -> None:
        self.method = method
        self.path = path
        self.authority = authority
        self.scheme = scheme
        self.version = version
        self.fields = fields
        self.index = index = dict(fields)
        if len(index) != len(fields):
            self.index = index_of(fields)
        self.names: dict[bytes, bytes] | None = None

    def lookup(self, name: bytes) -> bytes | None:
        """As ``get``, and pseudo-header names (``:path``, ``:method``, ``:authority``/``host``, ``:scheme``) work too."""
        if name[:1] == b":":
            if name == b":path":
                return self.path
            if name == b":method":
                return self.method
            if name == b":authority":
                return self.authority
            if name == b":scheme":
                return self.scheme
            return None
        if name == b"host":
            return self.authority
        return self.index.get(name)

    def copy(self) -> RequestHead:
        """An independent copy: what a retry or a mirror starts from."""
        head = RequestHead(self.method, self.path, self.authority, list(self.fields), self.version, self.scheme)
        head.names = self.names
        return head

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.authority!r} {self.path!r} {len(self.fields)} fields>"


class ResponseHead(Head):
    """A status and its fields; ``reason`` is what the upstream wrote behind the status, for logs only."""

    __slots__ = ("names", "reason", "status", "version")

    def __init__(self, status: int, fields: list[Field], version: int = 11, reason: bytes = b"") -> None:
        self.status = status
        self.version = version
        self.reason = reason
        self.fields = fields
        self.index = index = dict(fields)
        if len(index) != len(fields):
            self.index = index_of(fields)
        self.names: dict[bytes, bytes] | None = None

    def lookup(self, name: bytes) -> bytes | None:
        """As ``get``, and ``:status`` works too."""
        if name == b":status":
            return b"%d" % self.status
        return self.index.get(name)

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} {len(self.fields)} fields>"
