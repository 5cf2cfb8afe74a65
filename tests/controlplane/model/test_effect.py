"""Nothing is taken silently: every field is read by somebody, or refused, or its writer is told."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.model.causes import Invalid, Reason
from controlplane.model.effect import NOT_IMPLEMENTED, WITHOUT_EFFECT
from controlplane.model.kinds import KINDS
from controlplane.model.kubernetes.tolerance import Tolerant
from controlplane.model.mesh_config import MeshConfig
from controlplane.model.parsing import parse, warnings
from controlplane.model.resource import Model
from tests.controlplane.model.documents import document

ROOT = Path(__file__).resolve().parents[3] / "controlplane"
# What only describes and judges resources does not act upon them.
_DESCRIBING = ("model/istio/", "model/kubernetes/", "model/mesh_", "model/effect.py", "galley/analysis/")


def _words() -> set[str]:
    text = "".join(
        path.read_text() for path in ROOT.rglob("*.py") if not path.relative_to(ROOT).as_posix().startswith(_DESCRIBING)
    )
    return set(re.findall(r"\.(\w+)", text)) | set(re.findall(r"\"(\w+)\"", text))


def _told(model: type[Model], name: str) -> bool:
    tables = [table.get(each, {}) for table in (NOT_IMPLEMENTED, WITHOUT_EFFECT) for each in model.__mro__]
    return any(name in fields or "" in fields for fields in tables)


def _unread(model: type[Model], path: str, words: set[str], seen: set[type[Model]]) -> Iterator[str]:
    if model in seen or issubclass(model, Tolerant):  # Kubernetes' own kinds may say what a mesh does not read
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        at = f"{path}.{name}"
        if _told(model, name):
            continue
        parts = list(_models(field.annotation))
        if name not in words and not (parts and all(_told(part, each) for part in parts for each in part.model_fields)):
            yield at
        for below in parts:
            yield from _unread(below, at, words, seen)


def _models(annotation: object) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for each in typing.get_args(annotation):
        yield from _models(each)


def test_every_field_is_read_or_its_writer_is_told() -> None:
    words, seen = _words(), set[type[Model]]()
    roots = [(kind.name, kind.model) for kind in KINDS.values()] + [("MeshConfig", MeshConfig)]
    assert [at for name, model in roots for at in _unread(model, name, words, seen)] == []


def test_what_the_translation_reads_is_in_no_table() -> None:
    text = "".join(path.read_text() for path in (ROOT / "pilot").rglob("*.py"))
    tables = [*NOT_IMPLEMENTED.items(), *WITHOUT_EFFECT.items()]
    named = [(model.__name__, name) for model, names in tables for name in names if name]
    assert [f"{model}.{name}" for model, name in named if re.search(rf"\.{name}\b", text)] == []


def test_the_tables_name_fields_that_there_are() -> None:
    for table in (NOT_IMPLEMENTED, WITHOUT_EFFECT):
        for model, fields in table.items():
            assert set(fields) - {""} <= set(model.model_fields), model


@pytest.mark.parametrize(
    ("kind", "body", "paths"),
    [
        ("AuthorizationPolicy", "{rules: [{}]}", []),
        ("RequestAuthentication", "{jwtRules: [{issuer: a, jwks: '{\"keys\": []}'}]}", []),
        ("PeerAuthentication", "{mtls: {mode: STRICT}}", []),
        ("ProxyConfig", "{concurrency: 2, selector: {matchLabels: {a: b}}}", ["spec.concurrency"]),
        ("Telemetry", "{accessLogging: [{disabled: true}]}", []),
        ("Sidecar", "{egress: [{hosts: [./*]}]}", []),
    ],
)
def test_who_writes_what_nothing_acts_upon_is_told(kind: str, body: str, paths: list[str]) -> None:
    assert [cause.path for cause in warnings(parse(document(kind, body)))] == paths


def _mesh(text: str) -> dict[str, typing.Any]:
    return document("ConfigMap", "{}", "istio", "istio-system") | {"data": {"mesh": text}}


def test_settings_that_istio_writes_by_itself_are_kept_and_told() -> None:
    made = _mesh(
        "{enablePrometheusMerge: true, trustDomain: a.b, enableTracing: false, defaultConfig: {statusPort: 1}}"
    )
    found = {cause.path for cause in warnings(parse(made))}
    assert found == {"data[mesh].enableTracing", "data[mesh].defaultConfig.statusPort"}


def test_settings_that_are_not_implemented_are_refused() -> None:
    with pytest.raises(Invalid) as caught:
        parse(_mesh("{inboundTrafficPolicy: {mode: LOCALHOST}, tlsDefaults: {minProtocolVersion: TLSV1_3}}"))
    assert {cause.path: cause.reason for cause in caught.value.causes} == {
        "data[mesh].inboundTrafficPolicy": Reason.NOT_SUPPORTED,
        "data[mesh].tlsDefaults": Reason.NOT_SUPPORTED,
    }
