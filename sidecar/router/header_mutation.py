"""Headers that configuration adds and removes, compiled to one call for a head.

Source: Envoy's ``core.v3.HeaderValueOption`` and "Custom request/response headers": within one level removals come
first; then every value is rendered against the head as it stands; then headers are overwritten, then added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sidecar.config.core_types import HeaderValueOption
from sidecar.core.head import Head
from sidecar.core.header_changes import JOINED
from sidecar.core.stream_info import StreamInfo

CompileFormat = Callable[[str], Callable[[Any], bytes]]
"""Compiles a format string (``%REQ(x)%`` ...) to a function of the stream; raises ValueError for one that is wrong."""

MutateHead = Callable[[Head, StreamInfo], None]

_APPEND, _ADD_IF_ABSENT, _OVERWRITE_OR_ADD, _OVERWRITE, _JOIN = range(5)
_ACTIONS = {
    "APPEND_IF_EXISTS_OR_ADD": _APPEND,
    "ADD_IF_ABSENT": _ADD_IF_ABSENT,
    "OVERWRITE_IF_EXISTS_OR_ADD": _OVERWRITE_OR_ADD,
    "OVERWRITE_IF_EXISTS": _OVERWRITE,
}


def compile_value(value: str, compile_format: CompileFormat) -> bytes | Callable[[Any], bytes]:
    """A header value: the bytes themselves where nothing is substituted, a function of the stream otherwise."""
    return compile_format(value) if "%" in value else value.encode()


def compile_header_mutations(
    to_add: Sequence[HeaderValueOption], to_remove: Iterable[bytes], compile_format: CompileFormat
) -> MutateHead | None:
    """One level's mutations, or None when there are none.

    Pseudo-headers and host are never among the names: configuration refuses them, as Envoy does. Raises ValueError
    for a format that is wrong.
    """
    removals = tuple(to_remove)
    entries = []
    for option in to_add:
        value = compile_value(option.value, compile_format)
        if value == b"" and not option.keep_empty_value:
            continue
        action = _ACTIONS[option.append_action]
        if action == _APPEND and option.key in JOINED:
            action = _JOIN
        entries.append((option.key, value, action, option.keep_empty_value))
    if not entries:
        return _compile_removals(removals) if removals else None
    if all(isinstance(value, bytes) and action in (_APPEND, _OVERWRITE_OR_ADD) for _, value, action, _ in entries):
        return _compile_constants(
            removals,
            tuple((key, value) for key, value, action, _ in entries if action == _OVERWRITE_OR_ADD),
            tuple((key, value) for key, value, action, _ in entries if action == _APPEND),
        )
    return _compile_general(removals, tuple(entries))


def _compile_removals(names: tuple[bytes, ...]) -> MutateHead:
    if len(names) == 1:
        name = names[0]

        def remove(head: Head, stream: StreamInfo) -> None:
            if name in head.index:
                head.remove(name)

        return remove
    return lambda head, stream: head.remove_all(names)


def _compile_constants(removals: tuple[bytes, ...], overwrites: Any, appends: Any) -> MutateHead:
    def mutate(head: Head, stream: StreamInfo) -> None:
        if removals:
            head.remove_all(removals)
        for name, value in overwrites:
            head.set(name, value)
        for name, value in appends:
            head.add(name, value)

    return mutate


def _compile_general(removals: tuple[bytes, ...], entries: Any) -> MutateHead:
    def mutate(head: Head, stream: StreamInfo) -> None:
        if removals:
            head.remove_all(removals)
        index = head.index
        overwrites, appends = [], []
        for name, value, action, keep_empty in entries:
            if value.__class__ is not bytes:
                value = value(stream)
            if not value and not keep_empty:
                continue
            if action == _APPEND:
                appends.append((name, value))
            elif action == _JOIN:
                overwrites.append((name, index[name] + b"," + value if index.get(name) else value))
            elif action == _ADD_IF_ABSENT:
                if name not in index:
                    appends.append((name, value))
            elif action == _OVERWRITE_OR_ADD or name in index:
                overwrites.append((name, value))
        for name, value in overwrites:
            head.set(name, value)
        for name, value in appends:
            head.add(name, value)

    return mutate


def on_request(steps: Iterable[MutateHead | None]) -> Callable[[Any], None] | None:
    """Several levels' mutations of the request, in this order, as one function of the stream; None without any."""
    present = tuple(step for step in steps if step is not None)
    if not present:
        return None
    if len(present) == 1:
        only = present[0]
        return lambda stream: only(stream.request, stream)

    def mutate(stream: Any) -> None:
        request = stream.request
        for step in present:
            step(request, stream)

    return mutate


def on_response(steps: Iterable[MutateHead | None]) -> Callable[[Any], None] | None:
    """Several levels' mutations of the response, in this order, as one function of the stream; None without any."""
    present = tuple(step for step in steps if step is not None)
    if not present:
        return None
    if len(present) == 1:
        only = present[0]
        return lambda stream: only(stream.response, stream)

    def mutate(stream: Any) -> None:
        response = stream.response
        for step in present:
            step(response, stream)

    return mutate
