"""A directory that may be emptied, since it says itself that it is for that alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

MARK: Final = ".mizzen-demo"
"""The file by which a demo knows a directory of its own; its lock is held as long as a demo runs in it."""


@contextlib.contextmanager
def emptied(directory: Path) -> Iterator[None]:
    """Make ``directory``, or empty it if it carries the mark, and keep other demos out of it until the end.

    Raises click.ClickException, and touches nothing, if it has something in it and no mark, or if a demo runs in it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        names = os.listdir(directory)
        if names and MARK not in names:
            raise click.ClickException(
                f"{directory} has files in it that no demo has made, and a demo empties its directory: "
                "name a new or an empty one with --data-dir, or remove these files yourself"
            )
        lock = os.open(directory / MARK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _failed(directory, error) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException(
                f"a demo is running in {directory}: end it, or give another --data-dir"
            ) from None
        try:
            _empty(directory)
        except OSError as error:
            raise _failed(directory, error) from error
        yield
    finally:
        os.close(lock)


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.name == MARK:
            continue
        if path.is_dir() and not path.is_symlink():  # what a link leads to is somebody else's
            shutil.rmtree(path)
        else:
            path.unlink()


def _failed(directory: Path, error: OSError) -> click.ClickException:
    return click.ClickException(
        f"{error.filename or directory}: {error.strerror}: a demo keeps its state in {directory}; "
        "--data-dir names another directory"
    )
