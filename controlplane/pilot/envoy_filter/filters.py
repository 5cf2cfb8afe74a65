"""Patches of filters in a list: of listener filters, network filters, HTTP filters, and of routes, which have an order too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controlplane.pilot.envoy_filter.merging import merge
from controlplane.pilot.envoy_filter.selection import EnvoyPatch


def patch_list(items: Any, patch: EnvoyPatch, name: str, matches: Callable[[Any], bool], *, last_stays: bool) -> bool:
    """Apply one patch to a repeated field; whether it changed anything.

    ``matches`` says which items are meant, ``name`` is what the patch names, empty for nothing in particular. With
    ``last_stays`` what is added comes before the last item, which has to be the last one: the filter that ends a chain.
    """
    operation = patch.operation
    places = [index for index, item in enumerate(items) if matches(item)]
    if operation == "ADD":
        _insert(items, len(items) - 1 if last_stays and len(items) else len(items), patch.value)
        return True
    if operation == "INSERT_FIRST" or (operation == "INSERT_BEFORE" and not name):
        _insert(items, 0, patch.value)
        return True
    if operation == "INSERT_AFTER" and not name:
        _insert(items, len(items) - 1 if last_stays and len(items) else len(items), patch.value)
        return True
    if not places:
        return False
    if operation == "INSERT_BEFORE":
        _insert(items, places[0], patch.value)
    elif operation == "INSERT_AFTER":
        _insert(items, places[-1] + 1, patch.value)
    elif operation == "MERGE":
        for index in places:
            merge(items[index], patch.value)
    elif operation == "REPLACE":
        for index in places:
            items[index].CopyFrom(patch.value)
    elif operation == "REMOVE":
        for index in reversed(places):
            del items[index]
    return True


def _insert(items: Any, index: int, value: Any) -> None:
    """Repeated messages of protobuf can be appended and deleted; so what follows is taken out and put back."""
    rest = [type(item)() for item in items[index:]]
    for copy, item in zip(rest, items[index:], strict=True):
        copy.CopyFrom(item)
    del items[index:]
    items.append(value)
    items.extend(rest)
