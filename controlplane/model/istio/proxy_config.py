"""ProxyConfig: settings of proxies themselves (Istio reference: networking/proxy-config)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import Field

from controlplane.model.causes import Cause
from controlplane.model.istio.selection import MatchLabels
from controlplane.model.resource import Model
from controlplane.model.values import Int, Str


class ProxyImage(Model):
    """The kind of image in which a proxy runs, where it runs in one."""

    image_type: Str | None = None


class ProxyConfig(Model):
    """Settings of the selected workloads' proxies; without a selector, of the namespace's; in the root namespace, of all."""

    selector: MatchLabels | None = None
    concurrency: Int | None = None
    environment_variables: Mapping[Str, Str] = Field(default_factory=dict)
    image: ProxyImage | None = None

    def problems(self) -> Iterable[Cause]:
        if self.concurrency is not None and self.concurrency < 0:
            yield Cause("concurrency", f"must not be negative, it is {self.concurrency}; 0 means one for each core")
