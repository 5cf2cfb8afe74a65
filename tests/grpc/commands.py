"""Programs that speak HTTP/2, where they are installed."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def needs(name: str) -> pytest.MarkDecorator:
    """Skips where the program is missing."""
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"needs {name}")


def run(*command: str, given: bytes = b"", timeout: float = 30.0) -> str:
    """What a command printed; AssertionError when it fails or takes too long."""
    done = subprocess.run(
        command, input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, check=False
    )
    text = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{text}"
    return text
