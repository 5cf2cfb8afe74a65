"""Who wants resources asks here: ``core.discovery.Discovery`` over ADS, streams of one type, REST and files."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse

from sidecar.config.config_source import AggregatedConfigSource, ApiConfigSource, ConfigSource, PathConfigSource
from sidecar.config.grpc_service import GrpcService
from sidecar.core.client import Clients, GrpcOptions
from sidecar.core.discovery import ResourceWatcher, Subscription, SubscriptionCounters
from sidecar.core.token_bucket import TokenBucket
from sidecar.core.worker import Worker
from sidecar.xds.backoff import BASE_INTERVAL, MAX_INTERVAL, BackOff
from sidecar.xds.counters import Uncounted, UncountedStream
from sidecar.xds.delta import DeltaMultiplexer
from sidecar.xds.interest import Interest, Sparingly
from sidecar.xds.last_good import Forgetful, LastGood, LastGoodFiles
from sidecar.xds.mux import Multiplexer
from sidecar.xds.resource_types import ADS_DELTA, ADS_STREAM, ENDPOINTS
from sidecar.xds.sotw import SotwMultiplexer
from sidecar.xds.stream import ControlPlaneCounters, DiscoveryStream

if TYPE_CHECKING:
    from sidecar.xds.inotify import Inotify

_MAX_RESPONSE: Final = 256 << 20


class XdsDiscovery:
    """Makes subscriptions. ``ads`` is the bootstrap's `ads_config`; its stream is opened for the first who wants it.

    ``node`` is the `core.v3.Node` that requests carry (see ``node.make_node``). What was good last is kept below
    ``state_directory``, None for not at all. ``make_stats`` gives a stream its counters: that of ADS for None, else that of
    the subscription which has these.
    """

    def __init__(
        self,
        worker: Worker,
        clients: Callable[[], Clients],
        node: Any,
        ads: ApiConfigSource | None = None,
        *,
        state_directory: Path | None = None,
        make_stats: Callable[[SubscriptionCounters | None], ControlPlaneCounters] = lambda of: UncountedStream(),
    ) -> None:
        self.worker = worker
        self.clients = clients
        self.node = node
        self.ads = ads
        self.state_directory = state_directory
        self.make_stats = make_stats
        self._ads: Multiplexer[Any] | None = None
        self._others: dict[object, Callable[[], None]] = {}
        self._inotify: Inotify | None = None
        self._kept: list[LastGoodFiles] = []
        self._sparingly = Sparingly(worker.clock)

    def subscribe(
        self,
        source: ConfigSource,
        type_url: str,
        names: Collection[str] | None,
        watcher: ResourceWatcher,
        stats: SubscriptionCounters | None = None,
    ) -> Subscription:
        where = source.source
        # files are read at once: nobody waits
        timeout = 0.0 if isinstance(where, PathConfigSource) else source.initial_fetch_timeout
        interest = Interest(self.worker, type_url, names, watcher, stats or Uncounted(), timeout, self._sparingly)
        if isinstance(where, AggregatedConfigSource):
            return self._shared().subscribe(interest)
        if isinstance(where, PathConfigSource):
            return self._of_file(where, interest)
        if where.api_type == "REST":
            return self._over_rest(where, interest)
        return self._alone(where, interest)

    def _of_file(self, source: PathConfigSource, interest: Interest) -> Subscription:
        from sidecar.xds.files import FileSubscription  # only for those who use files
        from sidecar.xds.inotify import Inotify

        if self._inotify is None:
            self._inotify = Inotify(self.worker.loop)
        made = FileSubscription(self.worker, self._inotify, source, interest, self._forget)
        self._others[made] = interest.close
        return interest

    def _over_rest(self, api: ApiConfigSource, interest: Interest) -> Subscription:
        from sidecar.xds.rest import RestSubscription  # only for those who use REST

        last_good = self._last_good(api.cluster_name)
        path = ENDPOINTS[interest.type_url].rest
        made = RestSubscription(
            self.worker,
            self.clients(),
            api,
            path,
            self.node,
            last_good,
            interest,
            self._forget,
        )
        self._others[made] = interest.close
        return interest

    def _alone(self, api: ApiConfigSource, interest: Interest) -> Subscription:
        paths = ENDPOINTS[interest.type_url]
        assert api.grpc_service is not None
        stats = UncountedStream() if isinstance(interest.stats, Uncounted) else self.make_stats(interest.stats)
        mux = self._multiplexer(api, paths.stream, paths.delta, stats, api.grpc_service.cluster_name)

        def end() -> None:
            mux.close()
            self._forget(mux)

        mux.on_empty = end
        self._others[mux] = mux.close
        return mux.subscribe(interest)

    def _forget(self, other: object) -> None:
        self._others.pop(other, None)

    def pause(self, type_url: str) -> None:
        if self.ads is not None:
            self._shared().pause(type_url)

    def resume(self, type_url: str) -> None:
        if self.ads is not None:
            self._shared().resume(type_url)

    def close(self) -> None:
        """End all streams; what is not on disk yet is written."""
        if self._ads is not None:
            self._ads.close()
        for end in list(self._others.values()):
            end()
        if self._inotify is not None:
            self._inotify.close()
        for kept in self._kept:
            kept.flush()

    def _shared(self) -> Multiplexer[Any]:
        if self._ads is None:
            if self.ads is None:
                raise ValueError("ads needs dynamic_resources.ads_config")
            self._ads = self._multiplexer(self.ads, ADS_STREAM, ADS_DELTA, self.make_stats(None), "ads")
        return self._ads

    def _multiplexer(
        self, api: ApiConfigSource, path: bytes, delta: bytes, stats: ControlPlaneCounters, source: str
    ) -> Multiplexer[Any]:
        is_delta = api.api_type == "DELTA_GRPC"

        def make_stream(mux: Multiplexer[Any]) -> DiscoveryStream:
            response: Any = DeltaDiscoveryResponse if is_delta else DiscoveryResponse
            return self._stream(api, delta if is_delta else path, response, mux, stats)

        make = DeltaMultiplexer if is_delta else SotwMultiplexer
        once = api.set_node_on_first_message_only
        return make(self.worker, make_stream, self.node, self._last_good(source), node_once=once)

    def _stream(
        self, api: ApiConfigSource, path: bytes, response: Any, mux: Multiplexer[Any], stats: ControlPlaneCounters
    ) -> DiscoveryStream:
        service = api.grpc_service
        assert service is not None
        limit = None
        if api.rate_limit_settings is not None:
            settings = api.rate_limit_settings
            limit = TokenBucket(settings.max_tokens, settings.fill_rate, self.worker.clock())
        waits = api.retry_back_off
        base, longest = (BASE_INTERVAL, MAX_INTERVAL) if waits is None else (waits.base_interval, waits.max_interval)
        backoff = BackOff(self.worker.random_for("xds"), base, longest)
        client = self.clients().grpc(service.cluster_name, options_of(service))
        return DiscoveryStream(self.worker, client, path, response, mux, backoff, limit, stats)

    def _last_good(self, source: str) -> LastGood:
        if self.state_directory is None:
            return Forgetful()
        kept = LastGoodFiles(self.worker, self.state_directory, self.node.id, source, read_only=self.worker.number > 0)
        self._kept.append(kept)
        return kept

    def __repr__(self) -> str:
        return f"<XdsDiscovery {self._ads!r}>"


def options_of(service: GrpcService) -> GrpcOptions:
    """How a management server is asked: its answers may be large."""
    return GrpcOptions(
        retry=service.retry_policy,
        authority=service.authority.encode(),
        initial_metadata=service.initial_metadata,
        max_message_bytes=service.max_receive_message_length or _MAX_RESPONSE,
    )
