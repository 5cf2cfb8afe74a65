"""The endpoints that there are, and the two pages that list them: `/` for browsers, `/help` for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias

from sidecar.admin.page import Page

Parameters: TypeAlias = list[tuple[str, str]]
Handler: TypeAlias = Callable[[Parameters], Page]


class Parameter(NamedTuple):
    """A query parameter, as the listings describe it."""

    name: str
    description: str


class Command(NamedTuple):
    """An endpoint. One that `mutates` is answered to POST alone; with `listed_by_get`, GET may read it, too."""

    path: str
    description: str
    handler: Handler
    mutates: bool = False
    parameters: tuple[Parameter, ...] = ()
    listed_by_get: bool = False


def help_text(commands: Iterable[Command]) -> str:
    """`/help`, in Envoy's layout."""
    lines = ["admin commands are:\n"]
    for command in sorted(commands, key=lambda command: command.path):
        lines.append(f"  {command.path}{' (POST)' if command.mutates else ''}: {command.description}\n")
        lines += [f"      {parameter.name}: {parameter.description}\n" for parameter in command.parameters]
    return "".join(lines)


_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Mizzen Admin</title>
<style>
body {{ font-family: sans-serif }}
td {{ padding: 4px; vertical-align: top }}
tr:nth-child(even) {{ background-color: #eeeeee }}
form {{ margin: 0 }}
</style>
</head>
<body>
<table>
<thead><tr><th>Command</th><th>Description</th></tr></thead>
<tbody>
{rows}</tbody>
</table>
</body>
</html>
"""


def home_html(commands: Mapping[str, Command]) -> str:
    """`/`: a link for each page, a button for each command that changes something."""
    rows = (_row(command) for path, command in sorted(commands.items()) if path != "/")
    return _PAGE.format(rows="".join(rows))


def _row(command: Command) -> str:
    from html import escape  # a quarter of a megabyte, for this page only

    name = escape(command.path[1:])
    first = f'<a href="{name}">{name}</a>'
    if command.mutates:
        first = f'<form action="{name}" method="post"><button>{name}</button></form>'
    return f"<tr><td>{first}</td><td>{escape(command.description)}</td></tr>\n"
