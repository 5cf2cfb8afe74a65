"""Certificates by the issuing path itself, and over REST as workloads renew: for how much CPU, and in how long slices."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import http.client
import json
import ssl
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.control_plane.runner import Report, Running, control_plane
from controlplane.citadel.citadel import Citadel
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.model.credentials import Identity, Role
from controlplane.nodeagent.control_plane import WAIT

_IDENTITY = "spiffe://cluster.local/ns/shop/sa/reviews"
_CALLER = Identity(Role.ADMIN, "admin")  # of one workload's own there are but so many each second
_AT_ONCE = 64
_WORKLOADS = 10_000
_HOUR = 3600.0
_DAY = datetime.timedelta(days=1)


def signing_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """For the identity, as a node agent makes it."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_IDENTITY)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


async def issue(report: Report, key_type: str, count: int) -> None:
    """By the path that every certificate takes: request parsed and checked, signed, and written to the audit log."""
    with tempfile.TemporaryDirectory(prefix="mizzen-benchmarks-") as name:
        store = await SqliteStore.open(Path(name) / "store.db")
        citadel = await Citadel.open(store, Path(name), key_type=key_type)
        request = signing_request(ec.generate_private_key(ec.SECP256R1()))

        async def certify(times: int) -> None:
            for _ in range(times):
                await citadel.issuance.certify(
                    _CALLER,
                    request,
                    namespace="shop",
                    service_account="reviews",
                    lifetime=None,
                    source="127.0.0.1:1",
                )

        await certify(20)
        rounds = max(1, count // _AT_ONCE)
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(certify(rounds) for _ in range(_AT_ONCE)))
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        each = cpu / (rounds * _AT_ONCE)
        told = f"{1 / each:.0f}/s of CPU ({each * 1e6:.0f} us each), {rounds * _AT_ONCE / took:.0f}/s by the clock"
        target = ("1000/s", each < 1 / 1000) if key_type == "ecdsa" else ("", None)
        report.add(f"certificates under a root of {key_type.upper()}, with CSR checks and audit log", told, *target)
        slices = []
        for _ in range(200):
            began = time.thread_time()
            citadel.authority.sign_workload(request, "shop", "reviews", _DAY)
            slices.append((time.thread_time() - began) * 1000)
        slices.sort()
        figure = f"median {median(slices):.2f} ms, p99 {slices[-2]:.2f} ms"
        report.add("  slice of the loop for one of them", figure, "5 ms", slices[-2] < 5)
        await citadel.close()
        await store.close()


class Renewing:
    """A workload's agent: it renews by the certificate that it got last, each time over a connection made by that, and asks for
    the trust bundle over a connection that it keeps.
    """

    def __init__(self, running: Running, directory: Path) -> None:
        self._where = running.api.access.server.removeprefix("https://")
        self._authority = running.api.access.authority
        self._file = directory / "workload.pem"
        key = ec.generate_private_key(ec.SECP256R1())
        self._request = signing_request(key).decode()
        asked = {"namespace": "shop", "serviceAccount": "reviews", "certificateSigningRequest": self._request}
        self._chain = running.api.request("POST", "/mizzen/v1/certificates", asked)["certificateChain"]
        self._key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    def renew(self, times: int) -> None:
        """One after the other."""
        body = json.dumps({"certificateSigningRequest": self._request})
        for number in range(times):
            connection = self._connection(number)
            connection.request("POST", "/mizzen/v1/renew", body, {"Content-Type": "application/json"})
            self._chain = _answer(connection, 201)["certificateChain"]
            connection.close()

    def ask(self, times: int) -> None:
        """Whether there is another trust bundle, one question after the other."""
        connection = self._connection(0)
        connection.request("GET", "/mizzen/v1/trust-bundle")
        version = _answer(connection, 200)["version"]
        for _ in range(times):
            connection.request("GET", f"/mizzen/v1/trust-bundle?have={version}&wait=0")
            _answer(connection, 200)
        connection.close()

    def _connection(self, number: int) -> http.client.HTTPSConnection:
        self._file.write_text(self._key + self._chain)
        context = ssl.create_default_context(cadata=self._authority)
        context.load_cert_chain(self._file)
        # From many addresses, as workloads are: to one there are but so many certificates each second.
        source = (f"127.0.0.{1 + number % 250}", 0)
        return http.client.HTTPSConnection(self._where, context=context, timeout=30, source_address=source)


def _answer(connection: http.client.HTTPSConnection, status: int) -> dict[str, Any]:
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != status:
        raise RuntimeError(f"a workload was answered by {answer.status}")
    found: dict[str, Any] = json.loads(text)
    return found


async def renew(report: Report, count: int) -> None:
    """CPU of the whole control plane for a renewal and for a question, and what ten thousand workloads make of them."""
    with tempfile.TemporaryDirectory(prefix="mizzen-benchmarks-") as name:
        async with control_plane(Path(name)) as running:
            workload = await asyncio.to_thread(Renewing, running, Path(name))
            await asyncio.to_thread(workload.renew, 20)
            began, cpu = time.monotonic(), running.cpu()
            await asyncio.sleep(2)
            idle = (running.cpu() - cpu) / (time.monotonic() - began)

            async def spent(work: Callable[[int], None], times: int) -> float:
                began, cpu = time.monotonic(), running.cpu()
                await asyncio.to_thread(work, times)
                used: float = running.cpu() - cpu - idle * (time.monotonic() - began)
                return used / times

            each = await spent(workload.renew, count)
            share = each * _WORKLOADS / _HOUR * 100
            told = f"{share:.2f} % of a core ({each * 1e3:.2f} ms each, with a TLS handshake of its own)"
            report.add(f"{_WORKLOADS} workloads renewing hourly over REST", told, "1 %", share < 1)
            each = await spent(workload.ask, count)
            share = each * _WORKLOADS / WAIT * 100
            told = f"{share:.1f} % of a core ({each * 1e3:.2f} ms each)"
            report.add(f"  and asking every {WAIT:.0f} s for another trust bundle, over one connection each", told)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every target was met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks citadel", description=__doc__)
    parser.add_argument("--certificates", type=int, default=5000, help="so many in the issuing path")
    parser.add_argument("--renewals", type=int, default=500, help="so many over REST")
    options = parser.parse_args(arguments)
    report = Report()

    async def measure() -> None:
        await issue(report, "ecdsa", options.certificates)
        await issue(report, "rsa", options.certificates // 5)
        await renew(report, options.renewals)

    asyncio.run(measure())
    missed = [line for line in report.lines if line.met is False]
    print(f"{len(missed)} missed" if missed else "all met")
    return 1 if missed else 0
