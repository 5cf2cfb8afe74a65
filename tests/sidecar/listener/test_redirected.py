"""The original destination of connections that iptables redirects, in a network namespace of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

import pytest

from sidecar.listener.original_dst import original_destination

TOOLS = ("unshare", "ip", "iptables")


def _commands(port: int) -> list[str]:
    redirect = f"-t nat -A OUTPUT -p tcp --dport 4433 -j REDIRECT --to-ports {port}"
    return [
        "ip link set lo up",
        "ip address add 192.0.2.9/32 dev lo",
        "ip address add 2001:db8::9/128 dev lo nodad",
        f"iptables {redirect}",
        f"ip6tables {redirect}",
    ]


def main() -> None:
    """What runs in the namespace: prints the original destination of a connection of each family."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=False) as v6:
        port = v6.getsockname()[1]
        with socket.create_server(("0.0.0.0", port)) as v4:
            for command in _commands(port):
                done = subprocess.run(command.split(), capture_output=True, text=True, timeout=10, check=False)
                if done.returncode:
                    print(f"unavailable: {command}: {done.stderr.strip()}")
                    return
            for listening, address in ((v4, "192.0.2.9"), (v6, "2001:db8::9")):
                with socket.create_connection((address, 4433), timeout=5):
                    accepted = listening.accept()[0]
                    print(original_destination(accepted))
                    accepted.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}")
def test_original_destinations() -> None:
    command = ["unshare", "-n", sys.executable, "-m", "tests.sidecar.listener.test_redirected"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"no network namespace here: {done.stderr.strip()}")
    if done.stdout.startswith("unavailable"):
        pytest.skip(done.stdout.strip())
    assert done.stdout.split("\n") == ["<Address 192.0.2.9:4433>", "<Address [2001:db8::9]:4433>", ""], done.stderr


if __name__ == "__main__":
    main()
