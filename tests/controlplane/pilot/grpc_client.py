"""A gRPC client without a proxy, in a process of its own: for each line `TARGET COUNT [KEY=VALUE ...]` it calls so often
with that metadata, and says who answered how often, as JSON; failures count under their status.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

import grpc


def main() -> None:
    channels: dict[str, grpc.Channel] = {}
    for line in sys.stdin:
        target, count, *pairs = line.split()
        if target not in channels:
            channels[target] = grpc.insecure_channel(target)
        call = channels[target].unary_unary("/test.Who/Are")
        metadata = [tuple(pair.split("=", 1)) for pair in pairs]
        answers: Counter[str] = Counter()
        for _ in range(int(count)):
            try:
                answers[call(b"", timeout=5, metadata=metadata).decode()] += 1
            except grpc.RpcError as error:
                answers[f"{error.code().name}: {error.details()}"] += 1
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
