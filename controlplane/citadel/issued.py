"""Which workloads' certificates are good now: so many of the newest, in memory, and read from the audit log at the start."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from controlplane.model.certificates import IssuedCertificate

MOST: Final = 50_000
TAIL: Final = 32 << 20  # bytes of the audit log in which so many are found


class IssuedCertificates:
    """The newest ``most`` of them, in the order in which they were issued; what has expired goes."""

    def __init__(self, most: int = MOST, clock: Callable[[], float] = time.time) -> None:
        self._found: deque[IssuedCertificate] = deque(maxlen=most)
        self._texts: dict[str, str] = {}  # the same identities come again and again: each is kept once
        self._clock = clock

    def add(self, certificate: IssuedCertificate) -> None:
        """One that was handed out."""
        self._found.append(certificate)
        now = self._clock()
        while self._found and self._found[0].not_after <= now:
            self._found.popleft()

    def unexpired(self) -> Sequence[IssuedCertificate]:
        """Those that are good now, the newest last."""
        now = self._clock()
        return [certificate for certificate in self._found if certificate.not_after > now]

    def recall(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Those of an audit log's lines."""
        now = self._clock()
        withdrawn: set[str] = set()
        for line in lines:
            try:
                if line["event"] == "withdrawn":
                    withdrawn.add(line["serial"])
                elif line["event"] == "issued" and line["notAfter"] > now:
                    self.add(
                        IssuedCertificate(
                            serial=line["serial"],
                            identity=self.shared(line["identity"]),
                            requester=self.shared(line["requester"]),
                            authenticated=line["authenticated"],
                            source=self.shared(line["source"]),
                            issued_at=line["time"],
                            not_after=line["notAfter"],
                        )
                    )
            except (KeyError, TypeError):
                continue
        if withdrawn:
            kept = [one for one in self._found if one.serial not in withdrawn]
            self._found.clear()
            self._found.extend(kept)

    def shared(self, text: str) -> str:
        """The same text, of which there is one object."""
        if len(self._texts) > 2 * MOST:
            self._texts.clear()
        return self._texts.setdefault(text, text)
