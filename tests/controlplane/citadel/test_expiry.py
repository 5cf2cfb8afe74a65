"""What ends soon is said in time: by the log, by `mizzen`, and by figures that real Prometheus takes."""

from __future__ import annotations

import datetime
import json
import logging
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controlplane.citadel.authority_state import with_signer
from controlplane.citadel.citadel import Citadel
from controlplane.citadel.signers import new_root
from controlplane.model.credentials import Unauthenticated
from tests.controlplane.citadel.test_issuing import with_citadel
from tests.controlplane.citadel.test_rotation import certify
from tests.controlplane.whole import whole
from tests.running import free_ports, until

DAY = 86400.0


@pytest.mark.parametrize(
    ("days", "level"), [(370, 0), (360, logging.WARNING), (89, logging.ERROR), (29, logging.CRITICAL)]
)
def test_a_root_that_ends(tmp_path: Path, days: int, level: int, caplog: pytest.LogCaptureFixture) -> None:
    async def test(citadel: Citadel) -> None:
        expiry = citadel.expiry
        ends = citadel.authority.certificate.not_valid_after_utc.timestamp()
        now = [ends - days * DAY]
        expiry._clock = lambda: now[0]
        for _ in range(3):
            await expiry.look()
        said = [record for record in caplog.records if "mizzen ca rotate" in record.getMessage()]
        assert [record.levelno for record in said] == ([level] if level else [])
        assert [f"ends in {days} days" in message for message in expiry.warnings()] == [True] * len(said)
        now[0] += DAY
        await expiry.look()
        again = [record for record in caplog.records if "mizzen ca rotate" in record.getMessage()]
        assert len(again) == 2 * len(said), "the next day it is said again"

    caplog.set_level(logging.INFO)
    with_citadel(tmp_path, test)


def test_a_root_that_was_made_to_live_briefly(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        brief = new_root("cluster.local", lifetime=datetime.timedelta(days=30))
        await citadel.authority.change(lambda state: with_signer(state, brief), who="test")
        assert citadel.expiry.warnings() == []
        citadel.expiry._clock = lambda: time.time() + 21 * DAY
        assert len(citadel.expiry.warnings()) == 1

    with_citadel(tmp_path, test)


def test_a_leaf_that_nobody_renews(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        await certify(citadel, 1000)
        await certify(citadel, 1000, "10.0.0.8")
        await citadel.expiry.look()
        assert citadel.expiry.warnings() == [] and citadel.expiry.summary.workloads == 2
        later = time.time() + 760
        citadel.expiry._clock = lambda: later
        await certify(citadel, 1000, "10.0.0.8")
        citadel.expiry._known._found[-1] = type(citadel.expiry._known._found[-1])(
            **{
                field: getattr(citadel.expiry._known._found[-1], field)
                for field in ("serial", "identity", "requester", "authenticated", "source")
            },
            issued_at=later,
            not_after=later + 1000,
        )
        await citadel.expiry.look()
        (warning,) = citadel.expiry.warnings()
        assert "sa/reviews at 10.0.0.7:" in warning and "10.0.0.8" not in warning
        assert "past three quarters" in warning

    with_citadel(tmp_path, test)


def samples(text: str) -> dict[str, float]:
    return {
        sample.name + ("" if not sample.labels else "".join(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_figures(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        leaf = await certify(citadel, 3600)
        with pytest.raises(Unauthenticated):
            await citadel.issuance.join("mizzen-join-x-y-z", b"", lifetime=None, source="")
        serial = citadel.issuance.issued()[0].serial
        await citadel.expiry.look()
        found = samples(citadel.figures.text().decode())
        assert found["mizzen_certificates_issued_totalcertificate"] == 1
        assert found["mizzen_certificates_refused_totaljoin token"] == 1
        assert found["mizzen_workloads"] == 1
        assert found["mizzen_workload_certificate_earliest_expiry_timestamp_seconds"] == pytest.approx(
            time.time() + 3600, abs=60
        )
        await citadel.operations.revoke(serial=serial, identity="", reason="superseded", who="admin")
        await citadel.operations.rotate(key_type="ecdsa", timeout=None, who="admin")
        await citadel.expiry.look()
        found = samples(citadel.figures.text().decode())
        assert found["mizzen_revoked_certificates"] == 1 and found["mizzen_root_rotation_gate"] == 1
        assert found["mizzen_workloads"] == 0 and leaf

    with_citadel(tmp_path, test)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no prometheus")
def test_real_prometheus_takes_them_with_a_viewers_token(tmp_path: Path) -> None:
    with whole(tmp_path / "mesh") as mesh:
        token = mesh.api.request("POST", "/mizzen/v1/tokens", {"role": "viewer", "name": "prometheus"})["token"]
        (tmp_path / "token").write_text(token)
        (tmp_path / "roots.pem").write_text(mesh.api.access.authority)
        scrape = {
            "job_name": "mizzen",
            "scheme": "https",
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "authorization": {"credentials_file": str(tmp_path / "token")},
            "tls_config": {"ca_file": str(tmp_path / "roots.pem")},
            "static_configs": [{"targets": [f"127.0.0.1:{mesh.api_port}"]}],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": [scrape]}))
        (port,) = free_ports(1)
        prometheus = subprocess.Popen(
            [
                "prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--web.listen-address=127.0.0.1:{port}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:

            def value(name: str) -> float | None:
                query = urllib.parse.urlencode({"query": name})
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=5) as response:
                        found: list[Any] = json.load(response)["data"]["result"]
                except OSError:
                    return None
                return float(found[0]["value"][1]) if found else None

            until(lambda: value('up{job="mizzen"}') == 1.0, "it is scraped", timeout=30)
            ends = value('mizzen_authority_certificate_expiry_timestamp_seconds{role="root",signing="true"}')
            assert ends == pytest.approx(time.time() + 3650 * DAY, abs=600)
            server = value("mizzen_server_certificate_expiry_timestamp_seconds")
            assert server == pytest.approx(time.time() + 30 * DAY, abs=600)
            assert value("mizzen_root_rotation_gate") == 0.0
        finally:
            prometheus.terminate()
            prometheus.wait(20)


def test_metrics_are_not_for_strangers(tmp_path: Path) -> None:
    with whole(tmp_path) as mesh:
        context = ssl.create_default_context(cadata=mesh.api.access.authority)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"https://127.0.0.1:{mesh.api_port}/metrics", context=context, timeout=10)
