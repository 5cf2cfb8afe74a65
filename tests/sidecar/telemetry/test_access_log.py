"""Access logs from their configuration to the file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.config.access_log import (
    AccessLog,
    FileAccessLog,
    StatusCodeFilter,
    StderrAccessLog,
    StdoutAccessLog,
)
from sidecar.config.core_types import SubstitutionFormatString
from sidecar.core.worker import Worker
from sidecar.telemetry.access_log import compile_access_logs, compile_format
from sidecar.telemetry.formatter import FormatContext, FormatError
from sidecar.telemetry.groups.server import FilesystemStats
from sidecar.telemetry.log_file import LogFiles
from tests.sidecar.telemetry.finished_streams import http_stream

TEXT = SubstitutionFormatString("%RESPONSE_CODE% %ACCESS_LOG_TYPE%\n", None, False, b"")
JSON = SubstitutionFormatString(None, {"code": "%RESPONSE_CODE%", "none": "%REQ(A)%"}, True, b"")


@pytest.fixture
def worker() -> Iterator[Worker]:
    loop = asyncio.new_event_loop()
    yield Worker(loop, seed=1)
    loop.close()


def test_each_log_has_its_format_filter_and_file(worker: Worker, tmp_path: Path) -> None:
    files = LogFiles(FilesystemStats())
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    configs = (
        AccessLog(FileAccessLog(one, TEXT), None),
        AccessLog(FileAccessLog(one, JSON), StatusCodeFilter("GE", 500)),
        AccessLog(FileAccessLog(two), None),
    )
    logs = compile_access_logs(configs, files, worker, FormatContext("DownstreamEnd"))
    for stream in (http_stream(), http_stream(response_code=503)):
        for log in logs:
            log(stream)
    files.close()
    assert Path(one).read_bytes() == b'200 DownstreamEnd\n503 DownstreamEnd\n{"code":503}\n'
    assert Path(two).read_bytes().count(b'"GET /a?b=c HTTP/1.1"') == 2


def test_standard_streams(worker: Worker, capfd: pytest.CaptureFixture[str]) -> None:
    files = LogFiles(FilesystemStats())
    configs = (AccessLog(StdoutAccessLog(TEXT)), AccessLog(StderrAccessLog(JSON)))
    for log in compile_access_logs(configs, files, worker):
        log(http_stream())
    files.close()
    assert capfd.readouterr() == ("200 NotSet\n", '{"code":200}\n')


def test_a_wrong_format_is_refused(worker: Worker, tmp_path: Path) -> None:
    wrong = SubstitutionFormatString("%NONE%", None, False, b"")
    files = LogFiles(FilesystemStats())
    with pytest.raises(FormatError):
        compile_access_logs([AccessLog(FileAccessLog(str(tmp_path / "log"), wrong))], files, worker)
    files.close()


def test_local_replies_have_formats_of_both_kinds() -> None:
    text = compile_format(SubstitutionFormatString("%RESPONSE_CODE%: %LOCAL_REPLY_BODY%", None, False, b""))
    assert text(http_stream(), b"body") == b"200: body"
    structure = compile_format(SubstitutionFormatString(None, {"body": "%LOCAL_REPLY_BODY%"}, False, b""))
    assert structure(http_stream(), b'b"\n') == b'{"body":"b\\"\\n"}\n'
