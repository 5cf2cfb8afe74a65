"""/explain: the route that a request would take, and why the routes before it would not do. Our own; Envoy has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from sidecar.admin.page import TEXT, Page, text
from sidecar.core.head import Field, RequestHead

Explain = Callable[[RequestHead], Iterable[tuple[str, Sequence[str]]]]


def explain_page(explain: Explain, parameters: list[tuple[str, str]]) -> Page:
    """`path`, `host` and `method` describe the request, each `header=name:value` adds a header to it."""
    request: dict[str, str] = {"path": "/", "host": "", "method": "GET"}
    fields: list[Field] = []
    for name, value in parameters:
        if name == "header":
            key, colon, content = value.partition(":")
            if not colon or not key.strip():
                return text(f"header={value} is not of the form name:value\n", 400)
            fields.append((key.strip().lower().encode(), content.strip().encode()))
        elif name in request:
            request[name] = value
        else:
            return text(f"unknown parameter {name!r}; there are path, host, method and header\n", 400)
    if not request["path"].startswith("/") and request["method"] != "CONNECT":
        return text("path must begin with /\n", 400)
    head = RequestHead(request["method"].encode(), request["path"].encode(), request["host"].encode(), fields)
    return Page(200, TEXT, _chunks(explain(head)))


def _chunks(explanations: Iterable[tuple[str, Sequence[str]]]) -> Iterator[bytes]:
    nobody = True
    for name, lines in explanations:
        nobody = False
        yield (f"{name}\n" + "".join(f"  {line}\n" for line in lines)).encode()
    if nobody:
        yield b"no listener has an HTTP connection manager\n"
