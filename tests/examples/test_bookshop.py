"""`mizzen demo`: the shop opens, its table follows the routes that are applied while it runs, and Ctrl-C ends all of it."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.running import REPOSITORY, Process, is_free, until

RESOURCES = REPOSITORY / "examples" / "bookshop"
_ROW = re.compile(r"│ (.+?) +│ (.+?) +│ (yes|no|-) +│ +([\d.]+) │ +(\d+)% │ +([\d.]+|-) │ +([\d.]+|-) │")


class Demo:
    """A demo that prints its table every half second."""

    def __init__(self, process: Process, directory: Path) -> None:
        self.process = process
        self.directory = directory

    def apply(self, name: str) -> float:
        """When the resource was applied."""
        done = subprocess.run(
            [sys.executable, "-m", "controlplane.cli", "apply", "--data-dir", str(self.directory), "-f", RESOURCES / name],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return time.monotonic()

    def table(self) -> dict[tuple[str, str], tuple[float, int, float, float]]:
        """The last whole table: (from, to) to requests/s, percent failed, p50 and p99 in ms."""
        whole = self.process.output.rpartition("page views")[0].rpartition("page views")[2]
        return {
            (row[1], row[2]): (
                float(row[4]),
                int(row[5]),
                *(0.0 if one == "-" else float(one) for one in (row[6], row[7])),
            )
            for row in map(_ROW.match, whole.splitlines())
            if row is not None
        }  # type: ignore[misc]

    def encrypted(self) -> dict[tuple[str, str], str]:
        """(from, to) to what the table says of mutual TLS."""
        whole = self.process.output.rpartition("page views")[0].rpartition("page views")[2]
        return {(row[1], row[2]): row[3] for row in map(_ROW.match, whole.splitlines()) if row is not None}

    def mizzen(self, command: str, *arguments: str | Path, status: int = 0) -> str:
        """What a command against the demo's control plane prints."""
        done = subprocess.run(
            [sys.executable, "-m", "controlplane.cli", command, "--data-dir", str(self.directory), *map(str, arguments)],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == status, (done.stdout, done.stderr)
        return done.stdout

    def ask(self, service: str, path: str, **headers: str) -> tuple[int, str]:
        """Somebody without a sidecar asks a service of the shop at its own address."""
        addresses = {"page": 1, "reviews": 3}
        network = re.search(r"http://(127\.0\.\d+)\.1:9080/", self.process.output)
        assert network is not None
        connection = http.client.HTTPConnection(f"{network[1]}.{addresses[service]}", 9080, timeout=10)
        try:
            connection.request("GET", path, headers={"host": f"{service}:9080", **headers})
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def shows(
        self, condition: Callable[[dict[tuple[str, str], tuple[float, int, float, float]]], bool], what: str
    ) -> None:
        until = time.monotonic() + 20
        while not condition(self.table()):
            assert time.monotonic() < until and self.process.running, f"{what}:\n{self.process.output[-4000:]}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    directory = tmp_path_factory.mktemp("demo") / "data"
    options = ("--data-dir", str(directory), "--plain", "--interval", "0.5", "--rate", "40")
    with Process("controlplane.cli", "demo", *options, environment={"COLUMNS": "100"}) as process:
        process.wait_for("The shop is open", timeout=60)
        yield Demo(process, directory)


NONE = (0.0, 0, 0.0, 0.0)


def test_who_calls_whom(demo: Demo) -> None:
    demo.shows(
        lambda table: (
            table.get(("page v1", "details"), NONE)[0] > 5 and table.get(("page v1", "reviews v1"), NONE)[0] > 5
        ),
        "page calls details and reviews v1",
    )
    assert not any(destination in ("reviews v2", "reviews v3") for _, destination in demo.table())


def test_a_canary(demo: Demo) -> None:
    demo.apply("reviews-90-10.yaml")
    demo.shows(
        lambda table: (
            0 < table.get(("page v1", "reviews v3"), NONE)[0] < table.get(("page v1", "reviews v1"), NONE)[0] / 2
            and table.get(("reviews v3", "ratings"), NONE)[0] > 0
        ),
        "one request in ten goes to v3, which asks ratings",
    )


def test_a_route_by_user(demo: Demo) -> None:
    demo.apply("reviews-by-user.yaml")
    demo.shows(
        lambda table: (
            table.get(("page v1", "reviews v2"), NONE)[0] > 5 and not table.get(("page v1", "reviews v3"), NONE)[0]
        ),
        "Ada goes to v2, nobody to v3",
    )


def test_a_delay_for_one_user(demo: Demo) -> None:
    demo.apply("ratings-delay.yaml")
    demo.shows(lambda table: table.get(("page v1", "reviews v2"), NONE)[3] > 1900, "reviews v2 waits for ratings")
    assert demo.table()["page v1", "reviews v1"][3] < 1900


def test_an_abort(demo: Demo) -> None:
    demo.apply("ratings-abort.yaml")
    demo.shows(
        lambda table: (
            table.get(("reviews v2", "(aborted by a fault)"), NONE)[0] > 0
            and table.get(("page v1", "reviews v2"), NONE)[3] < 1900
        ),
        "ratings fail for Ada, at once",
    )


def test_everything_between_sidecars_is_mutual_tls(demo: Demo) -> None:
    """The certificates live for an hour, and the control plane lists them."""
    demo.shows(lambda table: ("reviews v2", "ratings") in table, "reviews v2 asks ratings")
    found = {way: said for way, said in demo.encrypted().items() if way[0] not in ("(arriving)",) and "(" not in way[1]}
    assert set(found.values()) == {"yes"}, found
    listed = demo.mizzen("certs")
    for account in ("page", "details", "reviews", "ratings"):
        assert f"spiffe://cluster.local/ns/shop/sa/{account}" in listed, listed


def test_strict_locks_plaintext_out(demo: Demo) -> None:
    assert demo.ask("reviews", "/reviews/0")[0] == 200
    demo.apply("strict.yaml")
    until(lambda: demo.ask("reviews", "/reviews/0")[0] == 0, "plain text to reviews is refused")
    assert demo.ask("page", "/")[0] == 200, "visitors are let in"
    told = demo.mizzen("explain", "--to", "shop/reviews", "GET", "/reviews/0", status=3)
    assert "PeerAuthentication shop/default" in told, told


def test_only_the_page_may_call_reviews(demo: Demo) -> None:
    demo.apply("only-page.yaml")
    asked = ("explain", "--to", "reviews", "GET", "/reviews/0")

    def refused() -> bool:
        told = subprocess.run(
            [sys.executable, "-m", "controlplane.cli", asked[0], "--data-dir", str(demo.directory), "--from", "shop/ratings",
             *asked[1:]], cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return told.returncode == 3 and "AuthorizationPolicy shop/only-page, rule 0" in told.stdout

    until(refused, "ratings may not call reviews any more")
    told = demo.mizzen("explain", "--from", "shop/ratings", *asked[1:], status=3)
    assert "the client is spiffe://cluster.local/ns/shop/sa/ratings" in told, told
    assert (
        demo.mizzen("explain", "--from", "shop/page", *asked[1:]).strip().endswith("goes to cluster 'inbound|9080||'")
    )
    demo.shows(lambda table: table.get(("page v1", "reviews v1"), NONE)[:2] > (5.0, 0), "the page calls reviews")


def test_orders_need_a_token(demo: Demo) -> None:
    token = (RESOURCES / "ada.jwt").read_text().strip()
    demo.apply("tokens.yaml")
    until(lambda: demo.ask("page", "/orders")[0] == 403, "nobody orders without a token")
    assert demo.ask("page", "/orders", authorization=f"Bearer {token}")[0] == 200
    assert demo.ask("page", "/orders", authorization=f"Bearer {token[:-6]}AAAAAA")[0] == 401
    assert demo.ask("page", "/")[0] == 200


def test_kubectl_is_told_how(demo: Demo) -> None:
    assert f"kubectl --kubeconfig {demo.directory}/admin.kubeconfig" in demo.process.output
    assert (demo.directory / "admin.kubeconfig").stat().st_mode & 0o777 == 0o600


def test_ctrl_c_ends_all_of_it(demo: Demo) -> None:
    """The last one: no process is left, no port is taken, no page view failed."""
    assert re.findall(r"(\d+) failed", demo.process.output)[-1] == "0"
    group = demo.process.child.pid
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(group)], capture_output=True, text=True).stdout.split()
    assert len(children) == 14, "a control plane, a node agent, six services, six sidecars"
    demo.process.send(signal.SIGINT)
    assert demo.process.end(30) == 0, demo.process.output[-3000:]
    for child in children:
        assert not Path(f"/proc/{child}").exists()
    assert is_free(9080)
