"""An HTTP/2 server that answers a request with an attack, which the test chooses."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from tests.attacks.attacker import Attacker
from tests.attacks.frames import PREFACE, settings

Attack = Callable[[Attacker, int], object]


class HostileUpstream:
    """Listens; ``attack`` is called with each connection and the first stream that was opened on it, in a thread.

    ``over`` has the attackers whose attack has ended.
    """

    def __init__(self) -> None:
        self.attack: Attack | None = None
        self.over: list[Attacker] = []
        self.failures: list[BaseException] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self._live: dict[threading.Thread, socket.socket] = {}
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def arm(self, attack: Attack) -> None:
        """What the next connections do; those of before are closed."""
        self.hang_up()
        self.attack = attack
        self.over.clear()
        self.failures.clear()

    def hang_up(self) -> None:
        """Close all connections; returns when their attacks have ended."""
        for thread, sock in tuple(self._live.items()):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._live[thread] = sock
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        waiting = b""
        try:
            while len(waiting) < len(PREFACE):
                found = sock.recv(len(PREFACE) - len(waiting))
                if not found:
                    return
                waiting += found
            attacker = Attacker(sock=sock)
            attacker.send([settings(), settings(ack=True)])
            if attacker.until(lambda: attacker.heads, 20) and self.attack is not None:
                self.attack(attacker, attacker.heads[0][0])
            self.over.append(attacker)
        except OSError:
            pass
        except BaseException as error:
            self.failures.append(error)
        finally:
            sock.close()
            self._live.pop(threading.current_thread(), None)

    def stop(self) -> None:
        """Returns when no connection is left."""
        self.attack = None
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._accepting.join(5)
        self.hang_up()
