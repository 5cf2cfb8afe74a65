"""HTTP/2 through restarts under load: a GOAWAY in two stages, and no stream without its answer."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.running import Process, free_ports, get
from tests.sidecar.bootstraps import address, bootstrap, direct, http_listener
from tests.sidecar.lifecycle.http2_load import NO_STREAM, Http2Load


@pytest.mark.parametrize(
    ("options", "strategy"), [((), "gradual"), (("--concurrency", "2"), "immediate")], ids=["one", "two-workers"]
)
def test_no_stream_is_lost_in_a_hot_restart(tmp_path: Path, options: tuple[str, ...], strategy: str) -> None:
    async def run() -> None:
        port, admin = free_ports(2)
        listener = http_listener("one", port, [direct("hello")])
        typed = listener["filter_chains"][0]["filters"][0]["typed_config"]
        typed["drain_timeout"] = "0.3s"  # from the first GOAWAY to the second
        config = bootstrap(listener, admin=0)
        config["admin"]["address"] = address(admin)
        path = tmp_path / "envoy.json"
        path.write_text(json.dumps(config))
        arguments = ("-c", str(path), "--drain-time-s", "0.5", "--drain-strategy", strategy, *options)
        with Process("sidecar", *arguments) as process:
            await asyncio.to_thread(process.wait_for, "2 workers serve" if options else "listening on")
            load = Http2Load(port, connections=6, streams=8)
            ended = 0
            for _ in range(2):
                await load.reach(500)
                process.send(signal.SIGHUP)
                ended += 2 if options else 1
                async with asyncio.timeout(30):
                    while process.output.count("ended: no connection is left") < ended:
                        await asyncio.sleep(0.01)
            await load.reach(500)
            await load.end()
            assert load.lost == []
            assert len(load.goaways) >= 12  # each connection moved to each new process
            for first, second in load.goaways:
                assert first == NO_STREAM
                assert second < NO_STREAM
            _, _, page = await asyncio.to_thread(get, admin, "/stats?filter=^http.one.downstream_rq_2xx$")
            assert page == f"http.one.downstream_rq_2xx: {load.answered}\n"

    asyncio.run(run())
