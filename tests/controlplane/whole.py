"""A real control plane as a process, the `mizzen` command against it, and proxies that start from its bootstraps."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from controlplane.cli.api import Api
from controlplane.cli.kubeconfig import find_access
from controlplane.model.kinds import KINDS
from tests.running import REPOSITORY, Process, free_ports, until


class Whole:
    """One control plane on free ports. ``start`` again after ``kill`` finds what it knew."""

    def __init__(self, directory: Path, *options: str, prefix: Sequence[str] = ()) -> None:
        self.directory = directory
        self.prefix = prefix
        self.api_port, self.xds_port, self.secure_port = free_ports(3)
        self.options = options
        self.process: Process | None = None
        self.start()

    def start(self) -> None:
        kubeconfig = self.directory / "admin.kubeconfig"
        self.process = Process(
            "controlplane", "--data-dir", str(self.directory), "--api-address", f"127.0.0.1:{self.api_port}",
            "--xds-address", f"127.0.0.1:{self.xds_port}", "--secure-xds-address", f"127.0.0.1:{self.secure_port}",
            "--grace", "1", *self.options, prefix=self.prefix,
        )  # fmt: skip
        self.process.wait_for("serving")
        assert kubeconfig.exists()
        self.api = Api(find_access(str(self.directory)))

    def kill(self) -> None:
        """As a power failure would: SIGKILL."""
        assert self.process is not None
        self.process.__exit__()

    def close(self) -> None:
        self.api.close()
        self.kill()

    def mizzen(self, *arguments: str, status: int = 0) -> str:
        """Run a `mizzen` command; what it printed."""
        command, *rest = arguments
        done = subprocess.run(
            [sys.executable, "-m", "controlplane.cli", command, "--data-dir", str(self.directory), *rest],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done.stdout + (done.stderr if status else "")

    def apply(self, *documents: Mapping[str, Any] | str) -> None:
        """Create or change resources: documents, or YAML texts."""
        for one in documents:
            for document in yaml.safe_load_all(one) if isinstance(one, str) else (one,):
                self.api.apply(KINDS[document["kind"]], document)

    def get(self, kind: str, namespace: str, name: str) -> Any:
        return self.api.get(KINDS[kind], namespace, name)

    def proxies(self) -> list[dict[str, Any]]:
        """As `mizzen proxy-status` shows them."""
        found: list[dict[str, Any]] = self.api.request("GET", "/mizzen/v1/proxies")
        return found

    def synced(self, count: int) -> bool:
        """Whether so many proxies have what they should have."""
        found = self.proxies()
        return len(found) == count and all(
            state["status"] == "SYNCED" for one in found for state in one["types"].values()
        )

    def settle(self, count: int) -> None:
        """Wait for that."""
        until(lambda: self.synced(count), f"{count} proxies have everything: {json.dumps(self.proxies())}", timeout=30)


@contextmanager
def whole(directory: Path, *options: str, prefix: Sequence[str] = ()) -> Iterator[Whole]:
    """A control plane for a test. ``prefix`` is a command that runs it."""
    running = Whole(directory, *options, prefix=prefix)
    try:
        yield running
    finally:
        running.close()
