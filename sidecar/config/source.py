"""Configuration as it was written (YAML or JSON text, or a dict) into a protobuf message."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import yaml
from google.protobuf.message import Message
from yaml.events import DocumentEndEvent, MappingStartEvent, StreamEndEvent

from sidecar.config.events import NextEvent, TooDeep, events_of, skip
from sidecar.config.filling import Filling
from sidecar.config.json_mapping import NULLS
from sidecar.config.problems import Problem

MessageType = TypeVar("MessageType", bound=Message)

_SURROGATES = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_NOT_IN_YAML = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]|\xef\xbf[\xbe\xbf]")


class Source:
    """One text that configuration was read from. `name` is what its problems call it: a file, `--config-yaml`, ..."""

    def __init__(self, text: bytes | str | Mapping[str, Any], name: str) -> None:
        self.name = name
        self._has_lines = not isinstance(text, Mapping)
        if isinstance(text, Mapping):
            text = json.dumps(text)
        if isinstance(text, str):
            text = text.encode("utf-8", "surrogatepass")
        self._text = _as_yaml(text) if text.lstrip()[:1] == b"{" else text

    def read(self, message: MessageType, problems: list[Problem]) -> MessageType:
        """Fill `message`, which is given back, and add everything that does not fit to `problems`."""
        next_event = events_of(self._text)
        filling = Filling(next_event, self.name, problems, lines=self._has_lines)
        try:
            self._text.decode()
            next_event()
            start = next_event()
            if isinstance(start, StreamEndEvent):
                problems.append(self._problem("is empty", "write a configuration into it"))
                return message
            root = next_event()
            if isinstance(root, MappingStartEvent):
                filling.fill(root, message)
            elif getattr(root, "value", None) in NULLS:
                problems.append(self._problem("is empty", "write a configuration into it"))
            else:
                filling.refuse(root, None, f"must be a mapping with the fields of {message.DESCRIPTOR.full_name}")
                skip(root, next_event)
            while not isinstance(event := next_event(), StreamEndEvent):
                if not isinstance(event, DocumentEndEvent):
                    filling.refuse(event, None, "has a second YAML document", "keep one document in a file")
                    break
        except UnicodeDecodeError as error:
            line = self._text.count(b"\n", 0, error.start) + 1
            problems.append(Problem(self.name, line, 0, "", "is not UTF-8 text", "save it as UTF-8"))
        except yaml.YAMLError as error:
            problems.append(self._syntax(TooDeep.instead_of(error)))
        return message

    def events(self) -> NextEvent | None:
        """The text's events, for telling places; None for a source without lines."""
        return events_of(self._text) if self._has_lines else None

    def _problem(self, problem: str, what_to_do: str) -> Problem:
        return Problem(self.name, 1 if self._has_lines else 0, 0, "", problem, what_to_do)

    def _syntax(self, error: yaml.YAMLError) -> Problem:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 0)
        reasons = [reason for reason in (getattr(error, "context", None), getattr(error, "problem", None)) if reason]
        reason = ": ".join(reasons) or str(error).splitlines()[0]
        return Problem(self.name, line, column, "", f"is not YAML: {reason}", "")


def _as_yaml(json_text: bytes) -> bytes:
    """JSON with the few characters spelt anew that YAML reads differently: surrogates, controls and line breaks."""
    spelt = _SURROGATES.sub(lambda match: json.loads(b'"' + match[0] + b'"').encode(), json_text)
    return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0].decode()):04x}".encode(), spelt)
