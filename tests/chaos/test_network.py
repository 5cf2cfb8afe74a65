"""A network of namespaces: one service is on the other side of a link that is cut, without a word to either end."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import uvloop

from tests.chaos.bed import RETRIED, Bed, Report, ServiceProcess

_HERE, _THERE = "198.18.77.1", "198.18.77.2"  # set aside for tests of networks (RFC 2544)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace with one link to ours; its name is the prefix of the links' names, too."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("namespaces need root, and the command ip")
    name = f"mz{os.getpid()}"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"there are no network namespaces here: {error.stderr}")
    try:
        _ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        _ip("addr", "add", f"{_HERE}/30", "dev", f"{name}a")
        _ip("link", "set", f"{name}a", "up")
        _ip("-n", name, "addr", "add", f"{_THERE}/30", "dev", f"{name}b")
        _ip("-n", name, "link", "set", f"{name}b", "up")
        yield name
    finally:
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", f"{name}a")
        _ip("netns", "del", name)


class Divided(Bed):
    """A bed with one more service, in a namespace of its own."""

    def __init__(self, folder: Path, seed: int, namespace: str, **options: Any) -> None:
        Bed.__init__(self, folder, seed, **options)
        prefix = ("ip", "netns", "exec", namespace)
        self.services.append(ServiceProcess(folder, 8080, "far", prefix, _THERE))


@pytest.mark.parametrize("retry", [None, RETRIED], ids=["no-retries", "retries"])
def test_one_side_cut_off(tmp_path: Path, namespace: str, retry: dict[str, Any] | None) -> None:
    """Requests that are there when the link is cut time out, and no others are lost; when it is back, all is as it was."""

    bed_clients = 8

    async def run() -> Report:
        bed = Divided(tmp_path, 1, namespace, retry=retry, clients=bed_clients)
        async with bed.running() as report:
            far = bed.services[0]
            await bed.clients.reach(200)
            assert far.delivered()
            _ip("-n", namespace, "link", "set", f"{namespace}b", "down")
            await asyncio.sleep(4.0)  # longer than any deadline
            await bed.clients.reach(Random(1).randrange(20, 40))
            _ip("-n", namespace, "link", "set", f"{namespace}b", "up")
        return report

    report = uvloop.run(run())
    print(report)
    assert report.outcomes.keys() - {"200"} <= {"503", "504"}, report.failures
    if retry is None:
        assert report.failed < report.sent / 2  # a third of them has nowhere else to go
    else:
        assert report.failed <= 2 * bed_clients  # what was under way when the link was cut
