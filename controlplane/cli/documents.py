"""Resource documents from files, in the order in which they can be created."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from controlplane.model.kinds import KINDS, Kind

_FIRST = ("Namespace", "ConfigMap", "Secret", "Service")


def read_documents(paths: Iterable[str]) -> list[tuple[Kind, dict[str, Any]]]:
    """All documents of files and directories (`-` is standard input). Raises click.ClickException with file and place."""
    found = [one for path in paths for one in _read(path)]
    return sorted(found, key=lambda pair: _FIRST.index(pair[0].name) if pair[0].name in _FIRST else len(_FIRST))


def _read(name: str) -> Iterator[tuple[Kind, dict[str, Any]]]:
    path = Path(name)
    if name != "-" and path.is_dir():
        for below in sorted(path.iterdir()):
            if below.suffix in (".yaml", ".yml", ".json"):
                yield from _read(str(below))
        return
    try:
        text = sys.stdin.read() if name == "-" else path.read_text()
        documents = list(yaml.load_all(text, yaml.CSafeLoader))
    except OSError as error:
        raise click.ClickException(f"{name}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise click.ClickException(f"{name}: {error}") from error
    for number, document in enumerate(documents, 1):
        if document is None:
            continue
        listed = (
            document.get("items", ()) if isinstance(document, dict) and document.get("kind") == "List" else (document,)
        )
        for one in listed:
            yield _known(one, f"{name}, document {number}")


def _known(document: Any, place: str) -> tuple[Kind, dict[str, Any]]:
    if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict):
        raise click.ClickException(f"{place}: not a resource: it needs apiVersion, kind and metadata")
    kind = KINDS.get(str(document.get("kind")))
    if kind is None:
        raise click.ClickException(
            f"{place}: there is no kind {document.get('kind')!r}; there are {', '.join(sorted(KINDS))}"
        )
    group, _, version = str(document.get("apiVersion", "")).rpartition("/")
    if group != kind.group or version not in kind.versions:
        raise click.ClickException(f"{place}: apiVersion of a {kind.name} is {kind.api_version}")
    if not document["metadata"].get("name"):
        raise click.ClickException(f"{place}: metadata.name is missing")
    return kind, document
