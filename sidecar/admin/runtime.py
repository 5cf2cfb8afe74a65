"""/runtime: the layers of the runtime, and each key's value in them. It cannot be changed here."""

from __future__ import annotations

from typing import Any

from sidecar.admin.compressed_bootstrap import CompressedBootstrap
from sidecar.admin.json_text import json_chunks, scalar
from sidecar.admin.page import JSON, Page, text

_MODIFY_USAGE = (
    "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n"
    "       or send the parameters as form values\n"
    "use an empty value to remove a previously added override"
)


def runtime_page(bootstrap: CompressedBootstrap) -> Page:
    """Layers in their order, the last one wins; keys in dotted form."""
    layers = list(bootstrap.parse().layered_runtime.layers)
    entries: dict[str, dict[str, Any]] = {}
    for position, layer in enumerate(layers):
        if layer.WhichOneof("layer_specifier") == "static_layer":
            for key, value in _flattened("", layer.static_layer):
                entry = entries.setdefault(key, {"layer_values": [""] * len(layers), "final_value": ""})
                entry["layer_values"][position] = entry["final_value"] = value
    shown = dict(sorted(entries.items()))
    return Page(200, JSON, json_chunks({"entries": shown, "layers": [layer.name for layer in layers]}))


def runtime_modify_page(parameters: list[tuple[str, str]]) -> Page:
    """Refuses, as Envoy does without an admin layer: keys come from the static layers alone."""
    return text("No admin layer specified", 503) if parameters else text(_MODIFY_USAGE, 400)


def _flattened(prefix: str, fields: Any) -> list[tuple[str, str]]:
    pairs = []
    for key, value in fields.fields.items():
        kind = value.WhichOneof("kind")
        if kind == "struct_value" and not value.struct_value.fields.keys() & {"numerator", "denominator"}:
            pairs += _flattened(f"{prefix}{key}.", value.struct_value)
        elif kind == "string_value":
            pairs.append((prefix + key, value.string_value))
        elif kind in ("number_value", "bool_value"):
            pairs.append((prefix + key, scalar(getattr(value, kind))))
        elif kind is not None:
            pairs.append((prefix + key, str(getattr(value, kind))))
    return pairs
