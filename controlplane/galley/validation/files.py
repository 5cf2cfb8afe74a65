"""Resources in files: every fault of every document, with its file and line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from controlplane.galley.validation.lines import Lines
from controlplane.model.causes import Cause, Invalid, Reason
from controlplane.model.documents import Unreadable, read_documents
from controlplane.model.effect import not_implemented
from controlplane.model.mesh_config import MeshConfig, read_mesh_config
from controlplane.model.parsing import parse
from controlplane.model.resource import Origin, Resource, ResourceKey

_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class FileProblem:
    """One fault: where it is (``line`` 0 if it is of the whole file), of what resource ("" if that cannot be told), what."""

    path: str
    line: int
    resource: str
    cause: Cause

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.resource}: {self.cause}" if self.resource else f"{place}: {self.cause}"


def validate_files(paths: Iterable[str]) -> list[FileProblem]:
    """All faults of the documents in files and below directories (`-` is standard input), file by file, line by line."""
    return read_resources(paths)[1]


def read_resources(paths: Iterable[str]) -> tuple[list[Resource], list[FileProblem]]:
    """The resources of files that are right, in order, and the faults of those that are not.

    Several files may have a resource of one name (one to be applied instead of the other); one file may not.
    """
    resources: list[Resource] = []
    problems: list[FileProblem] = []
    for path in paths:
        for file in _files(path):
            try:
                text = _text(file)
                documents = read_documents(text, file)
            except OSError as error:
                problems.append(FileProblem(file, 0, "", Cause("", f"cannot be read: {error.strerror}")))
                continue
            except UnicodeDecodeError as error:
                problems.append(
                    FileProblem(file, 0, "", Cause("", f"is not UTF-8: {error.reason} at byte {error.start}"))
                )
                continue
            except Unreadable as error:
                problems.append(FileProblem(file, error.origin.line, "", Cause("", error.message)))
                continue
            problems.extend(_judged(documents, file, text, resources))
    return resources, problems


def read_mesh_config_file(path: str) -> tuple[MeshConfig | None, list[FileProblem]]:
    """The mesh's configuration in a file of its own (not in a ConfigMap), or None and what is wrong with it."""
    try:
        text = _text(path)
        read_documents(text, path)
    except (OSError, UnicodeDecodeError) as error:
        return None, [FileProblem(path, 0, "", Cause("", f"cannot be read: {error}"))]
    except Unreadable as error:
        return None, [FileProblem(path, error.origin.line, "", Cause("", error.message))]
    try:
        found = read_mesh_config(text)
        causes = tuple(not_implemented(found, ""))
    except Invalid as invalid:
        causes = invalid.causes
    lines = Lines(text)
    problems = [FileProblem(path, lines.line(0, cause.path, 0), "MeshConfig", cause) for cause in causes]
    return (None if causes else found), sorted(problems, key=lambda problem: problem.line)


def _judged(
    documents: list[tuple[dict[str, object], Origin]], file: str, text: str, resources: list[Resource]
) -> Iterator[FileProblem]:
    lines: Lines | None = None
    known: dict[ResourceKey, Origin] = {}
    for number, (document, origin) in enumerate(documents):
        try:
            resource = parse(document, origin)
        except Invalid as invalid:
            lines = lines or Lines(text)
            named = _name(document)
            found = [
                FileProblem(file, lines.line(number, each.path, origin.line), named, each) for each in invalid.causes
            ]
            yield from sorted(found, key=lambda problem: problem.line)
            continue
        first = known.setdefault(resource.key, origin)
        if first is origin:
            resources.append(resource)
        else:
            message = f"is there already, at line {first.line}: remove one of them"
            yield FileProblem(file, origin.line, str(resource.key), Cause("metadata.name", message, Reason.DUPLICATE))


def _name(document: dict[str, object]) -> str:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{document.get('kind') or 'resource'} {name or 'without a name'}"


def _text(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    with open(file, encoding="utf-8") as opened:
        return opened.read()


def _files(path: str) -> Iterator[str]:
    if path == "-" or not os.path.isdir(path):
        yield path
        return
    for directory, directories, names in os.walk(path):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(_SUFFIXES) and not name.startswith("."):
                yield os.path.join(directory, name)
