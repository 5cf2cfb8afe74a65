"""The root is rotated by two control planes on one real etcd, of which the one that leads goes in the middle."""

from __future__ import annotations

import asyncio
from pathlib import Path

from controlplane.citadel.citadel import Citadel
from controlplane.citadel.rotation import Phase
from controlplane.galley.open_store import OpenStore, open_store
from tests.controlplane.citadel.test_authority import der
from tests.controlplane.citadel.test_issuing import leaf_of
from tests.controlplane.citadel.test_rotation import begin, certify, confirm, phase, since, until
from tests.controlplane.galley.etcds import cluster, needs_etcd

pytestmark = needs_etcd

THERE = "10.0.0.8"  # where an agent asks the second control plane


class Plane:
    """One of them: its own connection to the store, and what a control plane runs beside its servers."""

    def __init__(self, opened: OpenStore, citadel: Citadel) -> None:
        self.opened = opened
        self.citadel = citadel
        citadel.rotations.presence = opened.presence
        self.tasks = [
            asyncio.create_task(work)
            for work in (
                opened.presence.run(), opened.election.run(citadel.rotations.lead), citadel.bundles.follow(),
                citadel.rotations.report(), citadel.operations.follow_bans(),
            )
        ]  # fmt: skip

    @classmethod
    async def open(cls, url: str, directory: Path) -> Plane:
        opened = await open_store(url)
        return cls(opened, await Citadel.open(opened.store, directory))

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.citadel.close()
        await self.opened.store.close()


def test_two_control_planes_rotate_the_root_on_one_etcd(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()

    async def main(url: str) -> None:
        first = await Plane.open(url, tmp_path / "first")
        await until(lambda: first.opened.election.leading, "the first leads")
        second = await Plane.open(url, tmp_path / "second")
        planes = [first, second]
        old = first.citadel.authority.certificate
        assert second.citadel.authority.certificate == old, "one authority"
        chains = [await certify(first.citadel, 3600), await certify(second.citadel, 3600, THERE)]
        try:
            # Asked of the one that does not lead.
            await second.opened.presence.alive()
            await begin(second.citadel)
            await until(lambda: since(first.citadel) == since(second.citadel), "both know the version")
            assert first.citadel.bundles.current.version == second.citadel.bundles.current.version
            assert len(first.citadel.bundles.current.roots) == 2
            await confirm(first.citadel)
            await asyncio.sleep(1.2)  # longer than the leader's looks at who has confirmed
            for plane in planes:
                assert phase(plane.citadel) is Phase.DISTRIBUTING, "the agent at the other has not confirmed"
                leaf_of(await certify(plane.citadel, 60)).verify_directly_issued_by(old)
            # The leader steps down in the middle; the agents come to the other, which leads then.
            await first.close()
            planes.remove(first)
            await until(lambda: second.opened.election.leading, "the second leads")
            await confirm(second.citadel)
            await confirm(second.citadel, THERE)
            await until(lambda: phase(second.citadel) is Phase.MOVING, "all have confirmed: the new root signs")
            new = second.citadel.authority.certificate
            assert new != old
            leaf_of(await certify(second.citadel, 3600, THERE)).verify_directly_issued_by(new)
            # The first comes back, and knows how far it is.
            back = await Plane.open(url, tmp_path / "first")
            planes.append(back)
            assert phase(back.citadel) is Phase.MOVING and back.citadel.authority.certificate == new
            leaf_of(await certify(back.citadel, 3600)).verify_directly_issued_by(new)
            for plane in planes:
                for chain in chains:
                    found = await plane.citadel.credentials.authenticate(certificate=der(chain))
                    assert found.service_account == "reviews", "what the old root signed is good until the end"
            await back.citadel.operations.advance(gate=2, who="admin")
            await until(lambda: phase(second.citadel) is None, "both know that it is done")
            for plane in planes:
                assert plane.citadel.authority.state.roots == (new,)
                assert old in plane.citadel.authority.state.retired
                leaf_of(await certify(plane.citadel, 60)).verify_directly_issued_by(new)
        finally:
            for plane in planes:
                await plane.close()

    with cluster() as (etcd,):
        asyncio.run(main(f"{etcd.url}/mesh?keep=0"))
