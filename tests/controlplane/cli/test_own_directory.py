"""`mizzen demo --data-dir`: what a demo has not made it does not remove."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from controlplane.cli.main import command
from controlplane.cli.own_directory import MARK, emptied


def test_a_demo_does_not_start_in_a_directory_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("a face")
    monkeypatch.chdir(tmp_path)
    for name in (".", str(tmp_path)):
        refused = CliRunner().invoke(command, ("demo", "--data-dir", name, "--plain", "--duration", "0.1"))
        assert refused.exit_code == 1, refused.output
        assert f"Error: {name} has files in it that no demo has made" in refused.output
        assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
            "photos",
            "photos/one.jpg",
            "thesis.txt",
        ]


def test_a_directory_of_a_demo_is_emptied(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "demo"
    with emptied(directory):
        assert os.listdir(directory) == [MARK]
        (directory / "store.sqlite").write_text("")
        (directory / "logs" / "old").mkdir(parents=True)
    assert (directory / "store.sqlite").exists()
    with emptied(directory):
        assert os.listdir(directory) == [MARK]
    (tmp_path / "empty").mkdir()
    with emptied(tmp_path / "empty"):
        assert os.listdir(tmp_path / "empty") == [MARK]


def test_links_are_removed_and_what_they_lead_to_is_not(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with emptied(tmp_path / "demo"):
        (tmp_path / "demo" / "to-directory").symlink_to(tmp_path / "mine")
        (tmp_path / "demo" / "to-nothing").symlink_to(tmp_path / "nothing")
    with emptied(tmp_path / "demo"):
        assert os.listdir(tmp_path / "demo") == [MARK]
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_one_demo_at_a_time(tmp_path: Path) -> None:
    with emptied(tmp_path):
        (tmp_path / "store.sqlite").write_text("")
        with pytest.raises(click.ClickException, match="a demo is running in"), emptied(tmp_path):
            raise AssertionError
        assert (tmp_path / "store.sqlite").exists()


@pytest.mark.parametrize("below", ["", "demo"])
def test_a_file_is_no_directory(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("kept")
    directory = tmp_path / "file" / below
    with pytest.raises(click.ClickException, match="--data-dir names another directory"), emptied(directory):
        raise AssertionError
    assert (tmp_path / "file").read_text() == "kept"
