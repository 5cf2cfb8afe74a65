from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from controlplane.galley import directory
from controlplane.galley.directory import DirectorySource
from tests.controlplane.galley.catalogues import Watched, watched, written
from tests.controlplane.galley.stores import key


@pytest.fixture(params=["inotify", "polling"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DirectorySource:
    """One that is woken and would otherwise look only after a minute; and one that looks again and again."""
    path = tmp_path / "conf"
    path.mkdir()
    if request.param == "inotify":
        return DirectorySource(path, settle=0.03, poll=60)
    monkeypatch.setattr(directory.Inotify, "open", classmethod(lambda _: None))
    return DirectorySource(path, settle=0.03, poll=0.02)


def follow(source: DirectorySource, scenario: Callable[[Watched, Path], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), watched(source) as seen:
            await scenario(seen, source.path)

    asyncio.run(main())


def vs(name: str, **spec: object) -> str:
    lines = "".join(f"  {field}: {value}\n" for field, value in spec.items())
    head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
    return f"{head}metadata:\n  name: {name}\n  namespace: shop\nspec:\n{lines}"


def test_files_come_change_and_go(source: DirectorySource) -> None:
    (source.path / "here.yaml").write_text("# first\n" + vs("a", w=1) + "---\n" + vs("b", w=2))
    (source.path / "notes.txt").write_text("no: resource")
    (source.path / ".hidden.yaml").write_text("[")

    async def scenario(seen: Watched, path: Path) -> None:
        assert seen.specs == {"a": {"w": 1}, "b": {"w": 2}} and seen.problems == []
        origins = {key.name: str(each.origin) for key, each in seen.catalogue.resources.items()}
        assert origins == {"a": f"{path}/here.yaml:2", "b": f"{path}/here.yaml:10"}
        (path / "more" / "deep").mkdir(parents=True)
        (path / "more" / "deep" / "c.json").write_bytes(written("c", w=3))
        await seen.until(lambda: seen.specs.get("c") == {"w": 3})
        (path / "more" / "deep" / "c.json").write_bytes(written("c", w=4))
        await seen.until(lambda: seen.specs["c"] == {"w": 4})
        (path / "here.yaml").write_text(vs("b", w=2))  # one is gone, the other moved to another line
        await seen.until(lambda: "a" not in seen.specs)
        assert str(seen.catalogue.resources[key("b")].origin) == f"{path}/here.yaml:1"
        assert seen.changes[-1] == {key("a"): None}
        (path / "more").rename(path.parent / "away")
        await seen.until(lambda: "c" not in seen.specs)
        (path / "here.yaml").unlink()
        await seen.until(lambda: not seen.specs)
        (path.parent / "away").rename(path / "again")
        await seen.until(lambda: seen.specs == {"c": {"w": 4}})

    follow(source, scenario)


def test_a_broken_file_keeps_its_last_good_state_and_says_so(source: DirectorySource) -> None:
    (source.path / "a.yaml").write_text(vs("a", w=1) + "---\n" + vs("b", w=2))
    (source.path / "broken.yaml").write_text("a: [")

    async def scenario(seen: Watched, path: Path) -> None:
        assert len(seen.problems) == 1 and seen.problems[0].startswith(f"{path}/broken.yaml:2: ")
        assert seen.problems[0].endswith("nothing of it is in effect")
        (path / "a.yaml").write_text(vs("a", w=5) + "---\n" + vs("b", w=6) + "---\nkind: [\n")
        await seen.until(lambda: len(seen.problems) == 2)
        assert seen.specs == {"a": {"w": 1}, "b": {"w": 2}}
        assert (
            f"{path}/a.yaml:18: " in seen.problems[0]
            and "2 documents of its last good state still hold" in seen.problems[0]
        )
        (path / "broken.yaml").write_text(vs("c", w=1))  # everything else goes on
        await seen.until(lambda: "c" in seen.specs and len(seen.problems) == 1)
        (path / "a.yaml").write_text(vs("a", w=5) + "---\nkind: Nameless\n")
        await seen.until(lambda: "metadata.name is required" in seen.problems[0])
        assert f"{path}/a.yaml:9: " in seen.problems[0] and seen.specs["a"] == {"w": 1}
        (path / "a.yaml").write_text(
            vs("a", w=5) + "---\n" + vs("b", bad=6)
        )  # one document is wrong: the other applies
        await seen.until(lambda: seen.specs["a"] == {"w": 5})
        assert seen.specs["b"] == {"w": 2} and seen.problems[0].startswith(
            f"{path}/a.yaml:9: VirtualService/shop/b: spec.bad"
        )
        (path / "a.yaml").unlink()
        await seen.until(lambda: seen.specs == {"c": {"w": 1}} and not seen.problems)

    follow(source, scenario)


def test_an_editor_that_writes_by_rename_never_makes_it_disappear(source: DirectorySource) -> None:
    (source.path / "a.yaml").write_text(vs("a", w=0))

    async def scenario(seen: Watched, path: Path) -> None:
        for w in range(1, 6):
            (path / "a.yaml").rename(path / "a.yaml~")
            (path / "a.yaml").write_text("")
            (path / ".a.yaml.swp").write_text(vs("a", w=w))
            await asyncio.sleep(0.005)
            (path / ".a.yaml.swp").rename(path / "a.yaml")
            await seen.until(lambda w=w: seen.specs.get("a") == {"w": w})  # type: ignore[misc]
        assert all(change[key("a")] is not None for change in seen.changes)

    follow(source, scenario)


def test_a_file_that_is_being_written_is_not_taken_for_half_of_it(source: DirectorySource) -> None:
    (source.path / "a.yaml").write_text(vs("a", w=0) + "---\n" + vs("b", w=0))

    async def scenario(seen: Watched, path: Path) -> None:
        with open(path / "a.yaml", "w") as file:  # noqa: ASYNC230
            for line in (vs("a", w=1) + "---\n" + vs("b", w=1)).splitlines(keepends=True):
                file.write(line)
                file.flush()
                (path / "other.txt").write_text("wakes")
                await asyncio.sleep(0.002)
        await seen.until(lambda: seen.specs == {"a": {"w": 1}, "b": {"w": 1}})
        assert [set(change) for change in seen.changes] == [{key("a"), key("b")}] * 2

    follow(source, scenario)


def test_a_volume_of_kubernetes_is_swapped_whole(source: DirectorySource) -> None:
    def fill(version: str, **files: str) -> None:
        (source.path / version).mkdir()
        for name, text in files.items():
            (source.path / version / f"{name}.yaml").write_text(text)
        os.symlink(version, source.path / "..tmp")
        os.rename(source.path / "..tmp", source.path / "..data")

    fill("..2026_1", a=vs("a", w=1), b=vs("b", w=1))
    for name in ("a.yaml", "b.yaml"):
        os.symlink(f"..data/{name}", source.path / name)

    async def scenario(seen: Watched, path: Path) -> None:
        assert seen.specs == {"a": {"w": 1}, "b": {"w": 1}}
        fill("..2026_2", a=vs("a", w=2), b=vs("b", w=1))
        await seen.until(lambda: seen.specs["a"] == {"w": 2})
        fill("..2026_3", a=vs("a", w=3))
        await seen.until(lambda: seen.specs == {"a": {"w": 3}})

    follow(source, scenario)


def test_of_two_with_one_name_the_first_counts_and_the_other_is_told(source: DirectorySource) -> None:
    (source.path / "1.yaml").write_text(vs("a", w=1))
    (source.path / "2.yaml").write_text("# second\n" + vs("a", w=2))
    (source.path / "twice.yaml").write_text(vs("c", w=1) + "---\n" + vs("c", w=2))

    async def scenario(seen: Watched, path: Path) -> None:
        assert seen.specs == {"a": {"w": 1}}
        assert sorted(seen.problems) == [
            f"{path}/2.yaml:2: VirtualService/shop/a: has no effect, because {path}/1.yaml:1 has one of that name: "
            "remove either",
            f"{path}/twice.yaml:9: VirtualService/shop/c is at line 1 of this file already: remove either; "
            "nothing of it is in effect",
        ]
        (path / "1.yaml").unlink()
        await seen.until(lambda: seen.specs == {"a": {"w": 2}} and len(seen.problems) == 1)

    follow(source, scenario)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not hold for root")
def test_a_file_that_may_not_be_read_keeps_its_last_good_state(source: DirectorySource) -> None:
    file = source.path / "a.yaml"
    file.write_text(vs("a", w=1))

    async def scenario(seen: Watched, path: Path) -> None:
        file.chmod(0)
        await seen.until(lambda: seen.problems)
        assert "Permission denied" in seen.problems[0] and seen.specs == {"a": {"w": 1}}
        file.chmod(0o600)
        await seen.until(lambda: not seen.problems)

    follow(source, scenario)


def test_a_directory_that_goes_away_keeps_what_was_read(source: DirectorySource) -> None:
    (source.path / "a.yaml").write_text(vs("a", w=1))

    async def scenario(seen: Watched, path: Path) -> None:
        os.rename(path, path.parent / "elsewhere")
        await seen.until(lambda: seen.problems)
        assert "cannot be looked through: No such file or directory" in seen.problems[0] and seen.specs == {
            "a": {"w": 1}
        }

    follow(source, scenario)


def test_there_must_be_a_directory_at_the_beginning(tmp_path: Path) -> None:
    async def main() -> None:
        async for _ in DirectorySource(tmp_path / "none").updates():
            pass

    with pytest.raises(NotADirectoryError, match="none is not a directory: make it"):
        asyncio.run(main())


def test_links_in_a_circle_end(source: DirectorySource) -> None:
    (source.path / "sub").mkdir()
    (source.path / "sub" / "a.yaml").write_text(vs("a", w=1))
    os.symlink("..", source.path / "sub" / "up")
    os.symlink("nowhere.yaml", source.path / "dangling.yaml")

    async def scenario(seen: Watched, path: Path) -> None:
        assert seen.specs == {"a": {"w": 1}} and seen.problems == []

    follow(source, scenario)
