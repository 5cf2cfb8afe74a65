"""The control plane's own certificate is renewed in time, whatever went wrong before and whatever the clock does."""

from __future__ import annotations

import asyncio
import datetime
import time
from pathlib import Path

import pytest

from controlplane.citadel import server_certificates
from controlplane.citadel.citadel import Citadel
from controlplane.citadel.server_certificates import ServerCertificates
from tests.controlplane.citadel.test_issuing import with_citadel


@pytest.mark.parametrize("jump", [0.0, 21 * 86400.0, -3600.0])
def test_it_is_renewed_by_the_wall_clock_and_a_failure_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    monkeypatch.setattr(server_certificates, "_LOOK", 0.02)
    offset = [0.0]

    async def test(citadel: Citadel) -> None:
        certificates = ServerCertificates(
            citadel.authority, lifetime=datetime.timedelta(days=30), clock=lambda: time.time() + offset[0]
        )
        before, made, failures = certificates._chain, citadel.authority.server_certificate, 3

        def failing(*arguments: object) -> tuple[bytes, bytes]:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise OSError(24, "Too many open files")
            return made(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(citadel.authority, "server_certificate", failing)
        certificates.start()
        offset[0] = jump
        async with asyncio.timeout(10):
            while jump and certificates._chain == before:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert (certificates._chain != before) == bool(jump) and (failures < 0) == bool(jump)
        await certificates.stop()

    with_citadel(tmp_path, test)
