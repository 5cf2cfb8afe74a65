"""A node of a mesh: a real control plane, identities that joined it, and the agent as a process."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from controlplane.cli.identity import join
from tests.controlplane.whole import Whole, whole
from tests.running import Process


class Node:
    """Directories of one node, and its control plane. `agent` runs the agent on them."""

    def __init__(self, directory: Path, mesh: Whole) -> None:
        self.mesh = mesh
        self.identities = directory / "identities"
        self.sockets = directory / "sockets"
        self.identities.mkdir(parents=True)

    def join(
        self, account: str, *, namespace: str = "shop", lifetime: float | None = None, uids: tuple[int, ...] = ()
    ) -> Path:
        """An identity of the mesh: its directory."""
        body = {"namespace": namespace, "serviceAccount": account}
        token = self.mesh.api.request("POST", "/mizzen/v1/tokens", body)["token"]
        directory = self.identities / namespace / account
        join(self.mesh.api, token, directory, lifetime=lifetime, uids=uids)
        return directory

    def hasten(self, directory: Path, lifetime: float) -> None:
        """From its next renewal on, certificates of an identity live for so many seconds."""
        path = directory / "agent.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "lifetime": lifetime}))

    def socket(self, account: str, namespace: str = "shop") -> Path:
        return self.sockets / namespace / account / "agent.sock"

    @contextmanager
    def agent(self, *options: str) -> Iterator[RunningAgent]:
        with Process(
            "controlplane.nodeagent", "--identities", str(self.identities), "--sockets", str(self.sockets),
            "--metrics-address", "127.0.0.1:0", *options,
        ) as process:  # fmt: skip
            process.wait_for("ready: ")
            yield RunningAgent(process)


class RunningAgent:
    """The agent's process, and what it says of itself."""

    def __init__(self, process: Process) -> None:
        self.process = process
        line = next(line for line in process.output.splitlines() if line.startswith("ready: "))
        self.figures = f"http://{line.rpartition(' ')[2]}"

    @property
    def output(self) -> str:
        return self.process.output

    def wait_for(self, text: str, timeout: float = 20.0) -> None:
        self.process.wait_for(text, timeout)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a sample, 0 if there is none."""
        with urllib.request.urlopen(f"{self.figures}/metrics", timeout=5) as response:
            text = response.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return 0.0

    def ready(self) -> tuple[int, str]:
        """Status and words of /ready."""
        try:
            with urllib.request.urlopen(f"{self.figures}/ready", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@contextmanager
def node(directory: Path, *options: str) -> Iterator[Node]:
    """A node of a mesh of its own."""
    with whole(directory / "mesh", *options) as mesh:
        yield Node(directory, mesh)
