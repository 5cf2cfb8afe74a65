"""The target of a request to the administration interface: path and query parameters."""

from __future__ import annotations


def parse_target(target: bytes) -> tuple[str, list[tuple[str, str]]]:
    """The path, and the parameters in their order with %-escapes decoded. A plus sign stays one, as in Envoy."""
    path, _, query = target.decode("utf-8", "replace").partition("#")[0].partition("?")
    from urllib.parse import unquote  # half a megabyte; what stands around it has no need of it

    parameters = []
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        parameters.append((unquote(name), unquote(value)))
    return path, parameters


def first_values(parameters: list[tuple[str, str]]) -> dict[str, str]:
    """Each parameter's first value."""
    return dict(reversed(parameters))
