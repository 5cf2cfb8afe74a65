"""From the name of a protobuf message to its Python class, importing no more than the module that has it.

xds-protos holds some 600 modules, and importing them all costs a lot of memory. A message's package names its
directory, and the files there say which messages they define, so one small scan finds the module.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from functools import lru_cache

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from sidecar.config.problems import did_you_mean

TYPED_STRUCTS = frozenset({"xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"})
"""The messages that carry another message's fields as a Struct, with its type URL beside it."""

_NAME = re.compile(r"(?P<package>[a-z][a-z0-9_.]*)\.(?P<message>[A-Z]\w*(?:\.[A-Z]\w*)*)", re.ASCII)
_ROOTS = frozenset({"envoy", "google", "opencensus", "opentelemetry", "udpa", "xds"})


class UnknownType(Exception):
    """A type URL names no message that is known here. `what_to_do` may suggest one."""

    def __init__(self, type_url: str, what_to_do: str) -> None:
        super().__init__(f"the type {type_url!r} is not known" if type_url else "names no type")
        self.what_to_do = what_to_do


def type_name_of(type_url: str) -> str:
    """The message's full name in a type URL: what stands behind the last slash."""
    return type_url.rpartition("/")[2]


@lru_cache(maxsize=1024)
def message_class(type_name: str) -> type[Message]:
    """The class of the message with this full name, imported if need be. Raises UnknownType."""
    if not _find(type_name):
        raise UnknownType(type_name, _advice(type_name))
    found: type[Message] = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(type_name))
    return found


def _find(type_name: str) -> bool:
    pool = descriptor_pool.Default()
    if _has_message(pool, type_name):
        return True
    match = _NAME.fullmatch(type_name)
    if not match or match["package"].partition(".")[0] not in _ROOTS:
        return False
    mark = f"_globals['_{match['message'].replace('.', '_').upper()}']"
    directory = _directory(match["package"])
    for file in _modules(directory) if directory else ():
        with open(os.path.join(directory, file), encoding="utf-8", errors="replace") as source:
            found = mark in source.read()
        if found:
            importlib.import_module(f"{match['package']}.{file.removesuffix('.py')}")
            if _has_message(pool, type_name):
                return True
    return False


def _modules(directory: str) -> list[str]:
    return sorted(file for file in os.listdir(directory) if file.endswith("_pb2.py"))


def _has_message(pool: descriptor_pool.DescriptorPool, type_name: str) -> bool:
    try:
        pool.FindMessageTypeByName(type_name)
    except KeyError:
        return False
    return True


def _directory(package: str) -> str:
    """Where a package's modules are; empty if there is none of that name."""
    root, _, rest = package.partition(".")
    spec = importlib.util.find_spec(root)
    places = (os.path.join(place, *rest.split(".")) for place in (spec and spec.submodule_search_locations) or ())
    return next(filter(os.path.isdir, places), "")


def _advice(type_name: str) -> str:
    """What to write instead of a type that is not known; imports what stands in the package most like the one given."""
    from difflib import get_close_matches  # only for what is wrong

    otherwise = "write the full type URL of an Envoy v3 message"
    packages = _packages()
    close = get_close_matches(type_name.rpartition(".")[0], packages, n=1)
    known: list[str] = []
    for package in close:
        for file in _modules(packages[package]):
            module = importlib.import_module(f"{package}.{file.removesuffix('.py')}")
            known += [f"{package}.{name}" for name in module.DESCRIPTOR.message_types_by_name]
    return did_you_mean(type_name, known, otherwise)


@lru_cache(maxsize=1)
def _packages() -> dict[str, str]:
    """Where the versioned packages of Envoy's messages are, by their names."""
    spec = importlib.util.find_spec("envoy")
    return {
        os.path.relpath(directory, os.path.dirname(root)).replace(os.sep, "."): directory
        for root in (spec and spec.submodule_search_locations) or ()
        for directory, _, _ in os.walk(root)
        if os.path.basename(directory).startswith("v")
    }
