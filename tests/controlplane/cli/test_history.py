"""`mizzen history`, and what of a control plane's files has no effect, against a real control plane."""

from __future__ import annotations

import json
from pathlib import Path

from tests.controlplane.test_whole import NAMESPACE, routes
from tests.controlplane.whole import whole
from tests.running import until


def test_who_changed_what_and_when(tmp_path: Path) -> None:
    with whole(tmp_path) as mesh:
        mesh.apply(NAMESPACE, routes(90), routes(50))
        told = mesh.mizzen("history", "vs", "reviews", "-n", "shop")
        newest, oldest = told.split("\n\n")
        assert "MODIFIED" in newest and "-      weight: 90" in newest and "+      weight: 50" in newest
        assert "ADDED" in oldest and "+kind: VirtualService" in oldest and " admin\n" in oldest
        found = json.loads(mesh.mizzen("history", "VirtualService", "reviews", "-n", "shop", "-o", "json"))
        assert [each["type"] for each in found][:2] == ["ADDED", "MODIFIED"]
        assert "nothing is remembered" in mesh.mizzen("history", "vs", "other", "-n", "shop", status=1)
        assert "not a kind" in mesh.mizzen("history", "nonsense", "other", status=2)


def test_what_of_its_files_has_no_effect_is_told(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "broken.yaml").write_text("kind: [\n")
    with whole(tmp_path / "data", "--config-dir", str(files)) as mesh:
        (problem,) = mesh.api.request("GET", "/mizzen/v1/problems")
        assert (problem["source"], problem["path"], problem["line"]) == ("files", f"{files}/broken.yaml", 2)
        assert f"Error [IST0106] {files}/broken.yaml:2: " in mesh.mizzen("analyze", status=1)
        (files / "broken.yaml").write_text("")
        until(lambda: mesh.api.request("GET", "/mizzen/v1/problems") == [], "it is mended")
