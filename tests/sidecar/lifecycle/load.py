"""Requests without a pause, over connections that are kept, and told to close, as a client has them."""

from __future__ import annotations

import asyncio
import re

_LENGTH = re.compile(rb"content-length: (\d+)")


class Load:
    """So many connections that ask again and again until ``end``. ``answered`` counts the answers of 200, ``lost`` has what
    became of every other request; a connection that was closed before anything of a request was written loses nothing.
    """

    def __init__(self, port: int, connections: int, pause: float = 0.0) -> None:
        self.port = port
        self.answered = 0
        self.lost: list[str] = []
        self.asked_to_close = 0
        self._pause = pause
        self._ending = False
        self._tasks = [asyncio.create_task(self._ask_on_and_on(number)) for number in range(connections)]

    async def _ask_on_and_on(self, number: int) -> None:
        while not self._ending:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError as error:
                self.lost.append(f"connection {number}: {error!r}")
                return
            try:
                while not self._ending and await self._ask(reader, writer, number):
                    await asyncio.sleep(self._pause)
            except (OSError, asyncio.IncompleteReadError, AssertionError) as error:
                self.lost.append(f"connection {number}: {error!r}")
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        body = b"x" * (number * 100)
        writer.write(b"POST /%d HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (number, len(body), body))
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        length = _LENGTH.search(answer)
        assert length is not None, answer
        await reader.readexactly(int(length[1]))
        self.answered += 1
        closes = b"\r\nconnection: close\r\n" in answer
        self.asked_to_close += closes
        return not closes

    async def reach(self, answers: int, timeout: float = 30.0) -> None:
        """Wait until so many more requests were answered."""
        goal = self.answered + answers
        async with asyncio.timeout(timeout):
            while self.answered < goal and not self.lost:
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        """Let every connection finish its request."""
        self._ending = True
        async with asyncio.timeout(30):
            await asyncio.gather(*self._tasks)
