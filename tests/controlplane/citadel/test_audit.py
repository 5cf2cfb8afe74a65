"""The audit log: on the disk before anything is handed out, private, and with a full disk nothing is issued."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from controlplane.citadel import audit as audit_module
from controlplane.citadel.audit import AuditLog
from controlplane.citadel.citadel import Citadel
from controlplane.model.certificates import CannotIssue
from tests.controlplane.citadel.test_authority import signing_request
from tests.controlplane.citadel.test_issuing import REVIEWS, audited, with_citadel


def test_a_line_is_on_the_disk_before_the_call_returns_and_calls_share_the_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fdatasync = os.fdatasync

    def counted(descriptor: int) -> None:
        fdatasync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(audit_module.os, "fdatasync", counted)

    async def main() -> None:
        log = AuditLog(tmp_path / "audit.jsonl")
        await log.issued({"number": 0})
        assert synced == [len(b'{"number":0}\n')]
        await asyncio.gather(*(log.issued({"number": number}) for number in range(1, 101)))
        assert synced[-1] == (tmp_path / "audit.jsonl").stat().st_size and len(synced) < 10
        await log.close()

    asyncio.run(main())
    assert [line["number"] for line in audited(tmp_path)] == list(range(101))
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


@pytest.mark.parametrize("half", [False, True], ids=["nothing written", "half a line written"])
def test_a_full_disk_refuses_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bool) -> None:
    write = os.write

    def full(descriptor: int, content: bytes) -> int:
        if half:
            return write(descriptor, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    async def test(citadel: Citadel) -> None:
        async def certify() -> bytes:
            return await citadel.issuance.certify(REVIEWS, signing_request(), lifetime=None, source="")

        await certify()
        _, token = await citadel.tokens.create("shop", "reviews", lifetime=60, who="admin")
        with monkeypatch.context() as patched:
            patched.setattr(audit_module.os, "write", full)
            with pytest.raises(CannotIssue, match=r"audit log cannot be written \(No space left.*make room"):
                await certify()
            with pytest.raises(CannotIssue):
                await citadel.issuance.jwt_svid(REVIEWS, ["a"], lifetime=None, source="")
            with pytest.raises(CannotIssue):
                await citadel.issuance.join(token, signing_request(), lifetime=None, source="")
        assert len(citadel.issuance.issued()) == 1
        await certify()
        await citadel.issuance.join(token, signing_request(), lifetime=None, source="")
        assert [line["event"] for line in audited(tmp_path)] == ["issued"] * 3, "and no line is torn"

    with_citadel(tmp_path, test)


def test_a_disk_that_fails_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(audit_module.os, "fdatasync", broken)

    async def main() -> None:
        log = AuditLog(tmp_path / "audit.jsonl")
        results = await asyncio.gather(*(log.issued({"a": 1}) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(one, CannotIssue) for one in results)
        await log.close()

    asyncio.run(main())


def test_refusals_by_the_thousand_do_not_fill_the_disk(tmp_path: Path) -> None:
    now = [1000.0]

    async def main() -> None:
        log = AuditLog(tmp_path / "audit.jsonl", lambda: now[0])
        for _ in range(10_000):
            log.refused({"event": "refused"})
        now[0] += 1.0
        log.refused({"event": "refused"})
        await log.close()

    asyncio.run(main())
    lines = audited(tmp_path)
    assert len(lines) == 201 and lines[-1]["refusalsLeftOut"] == 9800


def test_a_log_that_is_renamed_is_begun_anew_and_a_torn_line_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"

    async def main() -> None:
        path.write_text('{"number":0}\n{"num')
        log = AuditLog(path)
        await log.issued({"number": 1})
        assert [line["number"] for line in log.lines(1 << 20)] == [0, 1]
        path.rename(tmp_path / "audit.jsonl.1")
        await log.issued({"number": 2})
        path.unlink()
        await log.issued({"number": 3})
        await log.close()

    asyncio.run(main())
    assert [line["number"] for line in audited(tmp_path)] == [3]
    rotated = (tmp_path / "audit.jsonl.1").read_text().splitlines()
    assert json.loads(rotated[-1]) == {"number": 1}


def test_a_line_of_a_file_that_is_renamed_before_the_sync_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "audit.jsonl", list[int]()
    fdatasync = os.fdatasync

    def counted(descriptor: int) -> None:
        fdatasync(descriptor)
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(audit_module.os, "fdatasync", counted)

    async def main() -> None:
        log = AuditLog(path)
        before = len(os.listdir("/proc/self/fd"))
        for number in range(5):
            old = path.stat().st_ino
            issuing = asyncio.create_task(log.issued({"number": number}))
            await asyncio.sleep(0)
            path.rename(tmp_path / f"audit.jsonl.{number}")
            log.refused({"event": "refused"})  # opens the new file
            await issuing
            assert json.loads((tmp_path / f"audit.jsonl.{number}").read_text().splitlines()[-1]) == {"number": number}
            assert old in synced
        assert len(os.listdir("/proc/self/fd")) == before
        path.rename(tmp_path / "last")
        log.refused({"event": "refused"})
        await log.close()
        assert len(os.listdir("/proc/self/fd")) == before - 1

    asyncio.run(main())


def test_what_was_withdrawn_is_written_whatever_strangers_do(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        for _ in range(1000):
            citadel.issuance.turned_away("no", authenticated="nothing", source="")
        _, token = await citadel.tokens.create("shop", "reviews", lifetime=60, who="admin")

        async def join() -> None:
            await citadel.issuance.join(token, signing_request(), lifetime=None, source="")

        results = await asyncio.gather(*(join() for _ in range(5)), return_exceptions=True)
        assert results.count(None) == 1
        events = [line["event"] for line in audited(tmp_path)]
        assert events.count("issued") == events.count("withdrawn") + 1 > 1

    with_citadel(tmp_path, test)


def test_what_was_issued_is_known_after_a_restart_within_bounds(tmp_path: Path) -> None:
    serials: list[str] = []

    async def first(citadel: Citadel) -> None:
        for lifetime in (1, 600, 600):
            await citadel.issuance.certify(REVIEWS, signing_request(), lifetime=lifetime, source="127.0.0.1:1")
        serials.extend(one.serial for one in citadel.issuance.issued())
        while len(citadel.issuance.issued()) == 3:
            await asyncio.sleep(0.05)

    async def second(citadel: Citadel) -> None:
        found: Any = citadel.issuance.issued()
        assert [one.serial for one in found] == serials[1:]
        assert found[0].identity is found[1].identity

    with_citadel(tmp_path, first)
    with_citadel(tmp_path, second)
