"""Clients that ask without a pause, and know of each request what became of it."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import Counter, deque
from random import Random

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n")
_STATUS = re.compile(rb"HTTP/1.1 (\d+) ")
_PATIENCE = 20.0
"""Seconds in which an answer must come, whatever it says: no deadline of a sidecar here is longer."""


class Clients:
    """So many connections at once, each for many requests. GETs and POSTs in turns: a POST must not be delivered twice.

    ``acknowledged`` are the numbers of requests that were answered with 200; ``outcomes`` counts what became of requests
    (``200``, ``503``, ``cut``, ``refused``); ``violations`` are what must never happen.
    """

    def __init__(self, port: int, count: int, seed: int, pause: float = 0.0) -> None:
        self.port = port
        self.random = Random(seed)
        self.pause = pause
        self.sent = 0
        self.acknowledged: set[int] = set()
        self.outcomes: Counter[str] = Counter()
        self.violations: list[str] = []
        self.failures: deque[str] = deque(maxlen=5000)
        self._numbers = itertools.count(1)
        self._ending = False
        self._tasks = [asyncio.create_task(self._ask_on_and_on()) for _ in range(count)]

    @property
    def failed(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome != "200")

    async def _ask_on_and_on(self) -> None:
        while not self._ending:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                self._failed("refused", 0)
                await asyncio.sleep(0.05)
                continue
            try:
                for _ in range(self.random.randrange(20, 500)):
                    if self._ending or not await self._ask(reader, writer):
                        break
                    if self.pause:
                        await asyncio.sleep(self.random.random() * 2 * self.pause)
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        number = next(self._numbers)
        is_post = number % 2 == 1
        body = b"y" * self.random.randrange(1, 3000) if is_post else b""
        self.sent += 1
        text = b"%d" % number
        length = b"content-length: %d\r\n" % len(body) if is_post else b""
        line = b"POST" if is_post else b"GET"
        writer.write(b"%b / HTTP/1.1\r\nhost: a\r\nx-number: %b\r\n%b\r\n%b" % (line, text, length, body))
        try:
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                status, size = _STATUS.match(head), _LENGTH.search(head)
                if status is None or size is None:
                    self.violations.append(f"request {number}: the answer has no status or no length: {head!r}")
                    return False
                answer = await reader.readexactly(int(size[1]))
        except (OSError, asyncio.IncompleteReadError):
            self._failed("cut", number)
            return False
        except TimeoutError:
            self.violations.append(f"request {number}: no answer within {_PATIENCE} s")
            return False
        if status[1] == b"200":
            self.outcomes["200"] += 1
            self.acknowledged.add(number)
            if answer != text:
                self.violations.append(f"request {number}: it has another's answer: {answer!r}")
        else:
            self._failed(status[1].decode(), number, answer)
        return b"\r\nconnection: close\r\n" not in head

    def _failed(self, outcome: str, number: int, answer: bytes = b"") -> None:
        self.outcomes[outcome] += 1
        self.failures.append(f"{outcome} request {number} {answer!r}")

    async def reach(self, requests: int, timeout: float = 60.0) -> None:
        """Wait until so many more were sent."""
        goal = self.sent + requests
        async with asyncio.timeout(timeout):
            while self.sent < goal:
                await asyncio.sleep(0.01)

    async def recover(self, timeout: float = 15.0) -> None:
        """Wait until 200 requests in a row were answered with 200. AssertionError if that takes longer."""
        until = asyncio.get_running_loop().time() + timeout
        while True:
            failed = self.failed
            await self.reach(200)
            if self.failed == failed:
                return
            assert asyncio.get_running_loop().time() < until, f"requests go on failing: {list(self.failures)[-5:]}"

    async def end(self) -> None:
        """Let each finish its request."""
        self._ending = True
        await asyncio.gather(*self._tasks)
