"""ConfigMap and Secret (v1): data by names."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.kubernetes.tolerance import Tolerant
from controlplane.model.values import Bool, Str


class ConfigMap(Tolerant):
    """Texts by names, and bytes in base64."""

    data: Mapping[Str, Str] = Field(default_factory=dict)
    binary_data: Mapping[Str, Str] = Field(default_factory=dict)
    immutable: Bool | None = None

    def problems(self) -> Iterable[Cause]:
        return _base64_problems(self.binary_data, "binaryData")


class Secret(Tolerant):
    """Secret bytes by names: ``data`` in base64, ``string_data`` as texts."""

    data: Mapping[Str, Str] = Field(default_factory=dict, repr=False)
    string_data: Mapping[Str, Str] = Field(default_factory=dict, repr=False)
    type: Str = "Opaque"
    immutable: Bool | None = None

    def value(self, name: str) -> bytes | None:
        """The secret of that name; None if there is none. What is written as text goes before what is in base64."""
        if name in self.string_data:
            return self.string_data[name].encode()
        return base64.b64decode(self.data[name]) if name in self.data else None

    def problems(self) -> Iterable[Cause]:
        yield from _base64_problems(self.data, "data")
        if self.type == "kubernetes.io/tls":
            for name in ("tls.crt", "tls.key"):
                if name not in self.data and name not in self.string_data:
                    yield Cause(f"data[{name}]", f"is required for type {self.type}: add it", Reason.REQUIRED)


def _base64_problems(data: Mapping[str, str], path: str) -> Iterator[Cause]:
    for name, value in data.items():
        try:
            base64.b64decode("".join(value.split()), validate=True)
        except (binascii.Error, ValueError):
            yield Cause(f"{path}[{name}]", "is not base64: encode the bytes")
