"""From what the operator gave (a file, text on the command line, a dict or a message) to a checked Bootstrap."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError, Message

from sidecar.config.constraints import check
from sidecar.config.context import Context, FindFormatProblems, take_every_format
from sidecar.config.extensions import message_class
from sidecar.config.fields import Node
from sidecar.config.places import Places
from sidecar.config.problems import ConfigurationError, Problem
from sidecar.config.source import Source

BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap"


def load_bootstrap(
    config: str | os.PathLike[str] | Mapping[str, Any] | Message | None = None,
    *,
    config_yaml: str | None = None,
    find_format_problems: FindFormatProblems = take_every_format,
) -> tuple[Node, Context]:
    """The Bootstrap as the root Node to build from, and the Context that its builders share.

    `config` is a path (`.yaml`, `.yml` and `.json` hold text, `.pb` a serialised Bootstrap), a dict in protobuf's JSON
    mapping, or a Bootstrap message. `config_yaml` is text that is merged over it, as Envoy's `--config-yaml` is:
    single fields replace, lists are appended to. One of the two is needed. `find_format_problems` tells what is wrong
    with a format string; without it, format strings are not looked at.

    What does not fit, and what breaks Envoy's constraints, is in `Context.problems` when this returns, so that the
    builders can add theirs; `Context.finish`, or leaving a `with context:` block, raises all of them. Raises
    ConfigurationError at once when nothing can be built: the file cannot be read, or is not YAML at all.
    """
    problems: list[Problem] = []
    sources: list[Source] = []
    message: Any = message_class(BOOTSTRAP)()
    if config is None and config_yaml is None:
        raise ConfigurationError([Problem("command line", 0, 0, "", "no configuration is given", "pass --config FILE")])
    if isinstance(config, Message):
        if config.DESCRIPTOR.full_name != BOOTSTRAP:
            raise TypeError(f"expected a {BOOTSTRAP}, not a {config.DESCRIPTOR.full_name}")
        message.CopyFrom(config)
    elif isinstance(config, Mapping):
        sources.append(Source(config, "configuration"))
    elif config is not None and os.fspath(config).endswith(".pb"):
        _parse(config, message)
    elif config is not None:
        sources.append(Source(_read(config), str(config)))
    if config_yaml is not None:
        sources.append(Source(config_yaml, "--config-yaml"))
    for source in sources:
        if message.ListFields():
            message.MergeFrom(source.read(message_class(BOOTSTRAP)(), problems))
        else:
            source.read(message, problems)
    context = Context(_name_of(config), Places(sources) if sources else None, find_format_problems)
    context.problems += problems
    if any(not problem.path for problem in problems):
        context.raise_problems()
    reported = {problem.path for problem in problems}
    around = {path.rpartition(".")[0] for path in reported}

    def refuse(path: str, problem: str, what_to_do: str) -> None:
        if path not in around and not _is_within(path, reported):
            reported.add(path)
            context.refuse(path, problem, what_to_do)

    check(message, refuse)
    return Node(message, "", context), context


def _is_within(path: str, reported: set[str]) -> bool:
    """Whether a constraint is only the consequence of a problem that is reported: at the same place, or around it."""
    while path:
        if path in reported:
            return True
        path = path[: max(path.rfind("."), path.rfind("["))] if "." in path or "[" in path else ""
    return False


def _name_of(config: object) -> str:
    if config is None:
        return "--config-yaml"
    return str(config) if isinstance(config, (str, os.PathLike)) else "configuration"


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        problem, what_to_do = "there is no such file", "check the path given with --config"
    except IsADirectoryError:
        problem, what_to_do = "is a directory", "give the path of a file with --config"
    except OSError as error:
        problem, what_to_do = f"cannot be read: {error.strerror}", "let the user that runs the sidecar read it"
    raise ConfigurationError([Problem(str(path), 0, 0, "", problem, what_to_do)])


def _parse(path: str | os.PathLike[str], message: Message) -> None:
    try:
        message.ParseFromString(_read(path))
    except DecodeError:
        problem = Problem(str(path), 0, 0, "", f"does not hold a serialised {BOOTSTRAP}", "name YAML or JSON files so")
        raise ConfigurationError([problem]) from None
