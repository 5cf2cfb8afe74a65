"""A backup that was made while the control plane ran is a whole control plane again."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

from tests.controlplane.test_whole import NAMESPACE, routes
from tests.controlplane.whole import whole


def test_a_backup_is_restored(tmp_path: Path) -> None:
    saved, data = tmp_path / "saved.sqlite", tmp_path / "data"
    with whole(data) as mesh:
        mesh.apply(NAMESPACE, routes(30))
        mesh.mizzen("backup", str(saved))
        assert stat.S_IMODE(saved.stat().st_mode) == 0o600
        assert "exists: name a file that does not" in mesh.mizzen("backup", str(saved), status=1)
        before = mesh.get("VirtualService", "shop", "reviews")
        mesh.apply(routes(99))
        mesh.kill()
        for name in ("store.sqlite", "store.sqlite-wal", "store.sqlite-shm"):
            (data / name).unlink(missing_ok=True)
        shutil.copy(saved, data / "store.sqlite")
        mesh.start()
        after = mesh.get("VirtualService", "shop", "reviews")
        assert after["spec"] == before["spec"] == routes(30)["spec"]
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        mesh.apply(routes(10))
        mesh.directory = tmp_path
        assert "store.sqlite is not there" in mesh.mizzen("backup", str(tmp_path / "no.sqlite"), status=1)
