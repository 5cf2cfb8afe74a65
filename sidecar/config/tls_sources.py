"""Bytes that stand in the configuration, or in a file that it names: `envoy.config.core.v3.DataSource`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from sidecar.config.fields import Node


@dataclass(frozen=True, slots=True)
class DataSource:
    """Bytes, or the file that has them; exactly one of the two is not empty.

    `watched_directory` is the directory whose changes say that the file is to be read again, empty for the file itself.
    """

    filename: str = ""
    inline: bytes = field(default=b"", repr=False)
    watched_directory: str = ""

    def read(self) -> bytes:
        """The bytes, from the file as it is now. Raises OSError."""
        if not self.filename:
            return self.inline
        with open(self.filename, "rb") as file:
            return file.read()


def watched_directory(node: Node) -> str:
    """The `watched_directory` of a message, empty for none."""
    watched = node.child("watched_directory")
    return "" if watched is None else str(watched.get("path"))


def parse_data_source(node: Node, name: str, watched: str = "") -> DataSource | None:
    """The `DataSource` in a field, None if it is not set or refused; `watched` is the directory unless it names its own."""
    source = node.child(name)
    if source is None:
        return None
    watched = watched_directory(source) or watched
    match source.which("specifier"):
        case "filename":
            return DataSource(source.get("filename"), watched_directory=watched)
        case "environment_variable":
            variable = source.get("environment_variable")
            value = os.environb.get(variable.encode())
            if value:
                return DataSource(inline=value)
            source.refuse(
                f"names {variable}, which is {'not set' if value is None else 'empty'}",
                "environment_variable",
                "set it",
            )
        case "inline_bytes":
            return DataSource(inline=bytes(source.get("inline_bytes")))
        case "inline_string":
            return DataSource(inline=source.get("inline_string").encode())
        case _:
            source.refuse("is empty", do="name a file, or write it inline")
    return None
