"""What holds for all tests of the translation."""

from __future__ import annotations

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # we fork only to execute something else, beside grpcio's threads
