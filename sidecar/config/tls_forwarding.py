"""What of a client's certificate goes upstream: `HttpConnectionManager.SetCurrentClientCertDetails`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sidecar.config.fields import Node


@dataclass(frozen=True, slots=True)
class SetCurrentClientCertDetails:
    """The parts of x-forwarded-client-cert besides By and Hash, which it always has."""

    subject: bool = False
    cert: bool = False
    chain: bool = False
    dns: bool = False
    uri: bool = False


NO_CERTIFICATE_DETAILS: Final = SetCurrentClientCertDetails()


def parse_set_current_client_cert_details(node: Node | None) -> SetCurrentClientCertDetails:
    """`SetCurrentClientCertDetails`."""
    if node is None:
        return NO_CERTIFICATE_DETAILS
    return SetCurrentClientCertDetails(
        node.wrapped("subject", False), node.get("cert"), node.get("chain"), node.get("dns"), node.get("uri")
    )
