"""Where traffic goes, and what is done to headers on the way: shared by routes of all protocols."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.resource import Model
from controlplane.model.values import (
    Int,
    Port,
    Str,
    dns_label_complaint,
    header_name_complaint,
    header_value_complaint,
    wildcard_domain_complaint,
)


class PortSelector(Model):
    """A port by its number."""

    number: Port


class Destination(Model):
    """A service as routes name it: a full or short name, a subset that a DestinationRule defines, a port."""

    host: Str
    subset: Str | None = None
    port: PortSelector | None = None

    def problems(self) -> Iterable[Cause]:
        if not self.host:
            yield Cause("host", "is required: name the service that traffic goes to", Reason.REQUIRED)
        elif self.host == "*":
            yield Cause("host", '"*" is every service: name the one that traffic goes to')
        elif complaint := wildcard_domain_complaint(self.host):
            yield Cause("host", complaint)
        if self.subset and (complaint := dns_label_complaint(self.subset.lower())):
            yield Cause("subset", complaint)


class HeaderOperations(Model):
    """Headers to set, to add and to remove, in this order."""

    set: Mapping[Str, Str] = Field(default_factory=dict)
    add: Mapping[Str, Str] = Field(default_factory=dict)
    remove: tuple[Str, ...] = ()

    def problems(self) -> Iterable[Cause]:
        for operation, headers in (("set", self.set), ("add", self.add)):
            for name, value in headers.items():
                if complaint := header_name_complaint(name):
                    yield Cause(f"{operation}[{name}]", complaint)
                elif name.startswith(":") and name != ":authority":
                    yield Cause(f"{operation}[{name}]", f"{name} cannot be changed: use rewrite for what it says")
                if complaint := header_value_complaint(value):
                    yield Cause(f"{operation}[{name}]", complaint)
        for index, name in enumerate(self.remove):
            if complaint := header_name_complaint(name):
                yield Cause(f"remove[{index}]", complaint)
            elif name.startswith(":") or name.lower() == "host":
                yield Cause(f"remove[{index}]", f"{name} cannot be removed: a message needs it")


class Headers(Model):
    """Header operations on the request and on the response."""

    request: HeaderOperations | None = None
    response: HeaderOperations | None = None

    def problems(self) -> Iterable[Cause]:
        for operation in ("set", "add"):
            for name in getattr(self.response, operation, ()):
                if name.lower() in ("host", ":authority"):
                    yield Cause(f"response.{operation}[{name}]", f"a response has no {name}: remove it")


class RouteDestination(Model):
    """A destination of TLS and TCP routes with its share of the connections."""

    destination: Destination
    weight: Int | None = None

    def problems(self) -> Iterable[Cause]:
        return weight_problems(self.weight)


def weight_problems(weight: int | None) -> Iterable[Cause]:
    """What is wrong with one weight."""
    if weight is not None and weight < 0:
        yield Cause("weight", f"a weight must not be negative, it is {weight}")


def weights_problems(weights: list[int | None], path: str) -> Iterable[Cause]:
    """What is wrong with the weights of one route together."""
    if len(weights) > 1 and sum(weight or 0 for weight in weights) == 0:
        yield Cause(
            path, "the weights come to 0, so that nothing would get traffic: give at least one destination a weight"
        )
    if sum(weight or 0 for weight in weights) > 2**32 - 1:
        yield Cause(path, "the weights come to more than 4294967295: make them smaller in proportion")
