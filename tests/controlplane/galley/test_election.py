from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from controlplane.galley.election import AlwaysLeading, EtcdElection
from controlplane.galley.etcd_client import EtcdClient
from controlplane.galley.etcd_url import EtcdUrl
from tests.controlplane.galley.etcds import cluster, needs_etcd, shared


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(40):
            await scenario()

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


class Candidate:
    """One that stands for election; ``terms`` are the times at which it began and ended to lead."""

    def __init__(self, url: str, name: str, lease: int) -> None:
        self.client = EtcdClient(EtcdUrl.parse(url))
        self.election = EtcdElection(self.client, "writer", name, lease=lease)
        self.terms: list[list[float]] = []
        self.running = asyncio.create_task(self.election.run(self.lead))

    async def lead(self) -> None:
        clock = asyncio.get_running_loop().time
        self.terms.append([clock()])
        try:
            await asyncio.Event().wait()
        finally:
            self.terms[-1].append(clock())

    async def stop(self) -> None:
        self.running.cancel()
        await asyncio.wait([self.running])
        await self.client.close()


@asynccontextmanager
async def candidates(url: str, *names: str, lease: int = 5) -> AsyncIterator[list[Candidate]]:
    standing = [Candidate(url, name, lease) for name in names]
    try:
        yield standing
    finally:
        for candidate in standing:
            await candidate.stop()


@needs_etcd
def test_one_leads_and_another_follows_when_it_steps_down() -> None:
    async def scenario() -> None:
        async with candidates(f"{shared().url}/{uuid.uuid4().hex}", "a", "b", "c") as standing:
            for left in (3, 2, 1):
                await until(lambda: any(each.election.leading for each in standing))
                await asyncio.sleep(0.1)
                (leader,) = [each for each in standing if each.election.leading]
                await until(lambda leader=leader: leader.terms)  # type: ignore[misc]
                assert [len(term) for term in leader.terms] == [1]
                assert await leader.election.leader() == repr(leader.election).rpartition(" ")[2].rstrip(">")
                begun = asyncio.get_running_loop().time()
                await leader.stop()
                assert len(leader.terms[0]) == 2
                standing.remove(leader)
                if left > 1:
                    await until(lambda: any(each.election.leading for each in standing))
                    assert asyncio.get_running_loop().time() - begun < 4  # long before its lease would have ended

    run(scenario)


LEADER = """
import asyncio, sys
from controlplane.galley.election import EtcdElection
from controlplane.galley.etcd_client import EtcdClient
from controlplane.galley.etcd_url import EtcdUrl

async def lead():
    print("leads", flush=True)

async def main():
    await EtcdElection(EtcdClient(EtcdUrl.parse(sys.argv[1])), "writer", "killed", lease=2).run(lead)

asyncio.run(main())
"""


@needs_etcd
def test_a_leader_that_is_killed_is_followed_when_its_lease_has_ended() -> None:
    async def scenario() -> None:
        url = f"{shared().url}/{uuid.uuid4().hex}"
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", LEADER, url, stdout=asyncio.subprocess.PIPE)
        assert child.stdout is not None and await child.stdout.readline() == b"leads\n"
        async with candidates(url, "next", lease=2) as [follower]:
            await asyncio.sleep(0.5)
            assert not follower.election.leading and await follower.election.leader() == "killed"
            os.kill(child.pid, signal.SIGKILL)
            await child.wait()
            await until(lambda: follower.election.leading)

    run(scenario)


@needs_etcd
def test_a_leader_without_etcd_steps_down_before_its_lease_ends_and_stands_again() -> None:
    async def scenario() -> None:
        with cluster() as [etcd]:
            async with candidates(f"{etcd.url}?timeout=1", "a", lease=2) as [leader]:
                await until(lambda: leader.election.leading)
                etcd.signal(signal.SIGSTOP)
                stopped = asyncio.get_running_loop().time()
                await until(lambda: not leader.election.leading)
                assert leader.terms[0][1] - stopped < 2
                etcd.signal(signal.SIGCONT)
                await until(lambda: leader.election.leading and len(leader.terms) == 2)

    run(scenario)


def test_one_who_is_alone_always_leads() -> None:
    async def scenario() -> None:
        election = AlwaysLeading()
        led = asyncio.Event()

        async def lead() -> None:
            led.set()

        running = asyncio.create_task(election.run(lead))
        await led.wait()
        await asyncio.sleep(0)
        assert election.leading and not running.done()
        running.cancel()

    run(scenario)
