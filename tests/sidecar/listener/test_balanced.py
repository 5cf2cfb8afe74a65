"""Who gets a connection: the worker that has the fewest, those on their way to it included."""

from __future__ import annotations

import asyncio
import os
import socket
from types import SimpleNamespace
from typing import Any

from sidecar.listener.balanced import CLOSED, Balancer, Exchange


class Taking:
    """In a listener's place: counts what it is given."""

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer
        self.index = 0
        self.limit = SimpleNamespace(active=0)
        self.names: list[Any] = []

    def take_over(self, accepted: Any, name: Any) -> None:
        os.close(accepted.fileno())
        self.names.append(name)
        self.keep()

    def keep(self) -> None:
        self.limit.active += 1
        self.balancer.tell(0, self.limit.active)


def worker(exchange: Exchange, number: int) -> tuple[Balancer, Taking]:
    board, inbox, *outboxes = map(os.dup, exchange.of_worker(number))
    made = Balancer(asyncio.get_running_loop(), number, board, inbox, outboxes)
    taking: Any = Taking(made)
    made.listeners = [taking]
    return made, taking


def test_a_burst_on_one_worker_is_spread_evenly() -> None:
    async def run() -> None:
        exchange = Exchange(3)
        workers = [worker(exchange, number) for number in range(3)]
        for balancer, _ in workers:
            balancer.start()
        with socket.create_server(("127.0.0.1", 0)) as server:
            clients = [socket.create_connection(server.getsockname()) for _ in range(30)]
            first, taking = workers[0]
            for _ in clients:
                sock, _ = server.accept()
                with sock:
                    if not first.pass_on(0, sock.fileno()):
                        taking.keep()
            async with asyncio.timeout(10):
                while sum(each.limit.active for _, each in workers) < 30:
                    await asyncio.sleep(0.001)
            assert [each.limit.active for _, each in workers] == [10, 10, 10]
            assert set(workers[1][1].names) <= {client.getsockname() for client in clients}
            for client in clients:
                client.close()
        exchange.end()

    asyncio.run(run())


def test_a_worker_that_has_ended_or_drains_gets_none() -> None:
    async def run() -> None:
        exchange = Exchange(2)
        (one, _), (two, _) = (worker(exchange, number) for number in range(2))
        one.start()
        one.tell(0, 5)
        with socket.socket() as sock:
            assert not one.pass_on(0, sock.fileno())  # the other has not started
            two.start()
            assert one.pass_on(0, sock.fileno())
            two.stop()
            assert not one.pass_on(0, sock.fileno())
            two.start()
            exchange.board.close(1)
            assert exchange.board.load(0, 1) >= CLOSED
            assert not one.pass_on(0, sock.fileno())
            one.stop()
            two.start()
            assert not one.pass_on(0, sock.fileno())  # what comes in a drain is served here
        exchange.end()

    asyncio.run(run())


def test_what_is_on_its_way_to_a_worker_counts_until_it_has_come() -> None:
    """So that a drain does not end before it."""

    async def run() -> None:
        exchange = Exchange(2)
        (one, _), (two, taking) = (worker(exchange, number) for number in range(2))
        one.start()
        two.start()
        one.tell(0, 5)
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
            sock, _ = server.accept()
            with sock:
                assert one.pass_on(0, sock.fileno())
            two.stop()
            assert (one.coming(), two.coming()) == (0, 1)
            async with asyncio.timeout(10):
                while two.coming():
                    await asyncio.sleep(0.001)
            assert taking.limit.active == 1
        exchange.end()

    asyncio.run(run())
