"""The composition root of the control plane: top to bottom the way of a configuration.

sources (directories, the API's store) -> catalogue: parsed, judged, merged -> pilot: Envoy resources -> hub: who has to hear
of it -> xDS streams -> proxies; what those refuse goes back into the statuses of the resources that caused it, and so does
what analysis finds.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from controlplane.admission import Admission
from controlplane.api.application import Application
from controlplane.api.server import ApiServer
from controlplane.citadel.certificate_service import CertificateService
from controlplane.citadel.citadel import Citadel
from controlplane.citadel.issuing import Lifetimes
from controlplane.citadel.kubeconfig import keep_admin_kubeconfig
from controlplane.citadel.plugged import InvalidAuthority, read_secret_file
from controlplane.citadel.sealing import CannotUnseal
from controlplane.citadel.server_certificates import ServerCertificates
from controlplane.citadel.token_review import InvalidCluster, find_cluster
from controlplane.discovery.openid import OpenIdDiscovery
from controlplane.discovery.registration import Registration, RegistrationFailed
from controlplane.galley.analysis.following import FollowingAnalysis
from controlplane.galley.catalogue import Catalogue
from controlplane.galley.directory import DirectorySource
from controlplane.galley.mirror import FilesMirror, ShownStore
from controlplane.galley.open_store import OpenStore, open_store
from controlplane.galley.shared_refusals import SharedRefusals
from controlplane.galley.source import Source
from controlplane.galley.statuses import StatusWriter
from controlplane.galley.store_source import StoreSource
from controlplane.galley.validation.files import read_mesh_config_file
from controlplane.model.certificates import CannotIssue
from controlplane.model.election import Election, Presence
from controlplane.model.kinds import KINDS
from controlplane.model.mesh_config import MeshConfig
from controlplane.model.parsing import parse
from controlplane.model.proxy import Proxy
from controlplane.model.registration import group_of
from controlplane.model.resource import Origin, Resource, ResourceKey
from controlplane.model.store import Store, Unavailable
from controlplane.operator_routes import RULES, metrics_route, operator_routes
from controlplane.pilot.translator import Pilot
from controlplane.refusals import Refusals
from controlplane.settings import InvalidSetting, Settings
from controlplane.xds.admission import Admit
from controlplane.xds.client_status import ClientStatusService
from controlplane.xds.health import HealthService
from controlplane.xds.hub import Hub
from controlplane.xds.rest import RestDiscovery
from controlplane.xds.server import DiscoveryServer, DiscoveryService, NotAdmitted, is_loopback

log = logging.getLogger("controlplane")

_PATIENCE_WITH_ISSUERS = 3.0  # seconds at the start, so that proxies do not get keys that verify nothing for a moment


class ControlPlane:
    """All parts of one control plane, wired. `start`, then `stop`; in between `failed` waits for what must not end."""

    store: Store
    election: Election
    mirror: FilesMirror
    presence: Presence
    registration: Registration
    openid: OpenIdDiscovery
    statuses: StatusWriter
    analysis: FollowingAnalysis
    citadel: Citadel
    certificates: ServerCertificates
    pilot: Pilot
    hub: Hub
    catalogue: Catalogue
    admission: Admission
    api: ApiServer

    def __init__(self, settings: Settings) -> None:
        if settings.xds is not None and not is_loopback(settings.xds[0]):
            raise InvalidSetting(
                f"--xds-address {settings.xds[0]}: plaintext stays on this machine; beyond it use --secure-xds-address"
            )
        self.settings = settings
        self.xds_servers: dict[str, DiscoveryServer] = {}
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Everything serves when it returns. Raises OSError, InvalidSetting; what had started is stopped by `stop`."""
        settings = self.settings
        self.store, self.election, self.presence = await _open_store(settings)
        await self._prove_who_we_are()

        mesh = _mesh_config(settings)
        self.pilot = Pilot(mesh, domain=settings.mesh_domain)
        self.catalogue = Catalogue(self._sources(), parse, self._changed)
        self.admission = Admission(self.citadel, self.catalogue.resources)
        self.mirror = FilesMirror(self.store, KINDS, _instance(settings.data_dir))
        self.statuses = StatusWriter(self.store, self.catalogue.resources)
        self.refusals = SharedRefusals(self.store, self.presence, self.statuses.tell_refusals)
        self.hub = Hub(
            self.pilot,
            quiet=settings.quiet,
            longest=settings.longest,
            verdicts=Refusals(self.pilot, self.refusals.tell),
        )
        self.registration = Registration(
            self.store, self.presence, grace=settings.grace, leading=lambda: self.election.leading
        )
        self.openid = OpenIdDiscovery(
            self.hub.changed, lambda: self.analysis.changed(), settings.data_dir / "openid.json"
        )
        self.analysis = FollowingAnalysis(
            self.catalogue.resources,
            self.statuses.tell_findings,
            lambda: [session.proxy for session in self.hub.sessions],
            unknown_issuers=self.openid.unknown,
            domain=settings.mesh_domain,
            default_mesh=mesh,
        )
        self._following = asyncio.create_task(self._follow())
        await self._synced()
        await self.openid.asked(_PATIENCE_WITH_ISSUERS)
        self.hub.flush()

        await self._serve_xds()
        await self._serve_api()

    def _changed(self, resources: Mapping[ResourceKey, Resource | None]) -> None:
        self.hub.changed(self.openid.resolved(resources))
        self.mirror.changed(resources)
        self.analysis.changed()

    async def _follow(self) -> None:
        """What runs as long as the control plane does."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_sources())
            group.create_task(supervised("the election", lambda: self.election.run(self._lead)))
            group.create_task(supervised("files in the API", self._show_files))
            group.create_task(supervised("presence", self.presence.run))
            group.create_task(supervised("refusals for others", self.refusals.report))
            group.create_task(supervised("registration", self.registration.run))
            group.create_task(supervised("issuers of tokens", self.openid.run))
            group.create_task(supervised("the trust bundle", self.citadel.bundles.follow))
            group.create_task(supervised("admin.kubeconfig", self._follow_roots))
            group.create_task(supervised("what expires", self.citadel.expiry.run))
            group.create_task(supervised("who has confirmed the root", self.citadel.rotations.report))
            group.create_task(supervised("revoked identities", self.citadel.operations.follow_bans))
            group.create_task(supervised("keys of JWT-SVIDs", self.citadel.jwt_keys.run))

    async def _follow_sources(self) -> None:
        """A source that cannot even begin ends the start; what goes wrong later does not end what is served."""
        try:
            await self.catalogue.run()
        except Exception:
            if not self.catalogue.is_synced:
                raise
            log.exception("the sources of resources are followed anew")
        await supervised("the sources of resources", self.catalogue.run)

    async def _show_files(self) -> None:
        await self.catalogue.synced()
        await self.mirror.run()

    async def _lead(self) -> None:
        """What one of all control planes on a store does."""
        async with asyncio.TaskGroup() as group:
            group.create_task(supervised("refusals at others", self.refusals.follow))
            group.create_task(supervised("statuses", self._write_statuses))
            group.create_task(supervised("analysis", self.analysis.run))
            group.create_task(supervised("the rotation of the root", self.citadel.rotations.lead))

    async def _write_statuses(self) -> None:
        await self.refusals.heard()
        await self.statuses.run()

    async def _prove_who_we_are(self) -> None:
        settings = self.settings
        self.citadel = await _open_citadel(self.store, settings)
        self.citadel.rotations.presence = self.presence
        bound = [address[0] for address in (settings.api, settings.secure_xds) if address is not None]
        self.certificates = ServerCertificates(self.citadel.authority, [*settings.names, *bound])
        self.certificates.start()
        self.citadel.figures.server_expiry = lambda: self.certificates.ends

    def _sources(self) -> list[Source]:
        """Files first: what an operator has put there cannot be changed over the network."""
        found: list[Source] = []
        for number, path in enumerate(self.settings.directories):
            found.append(DirectorySource(path, name="files" if not number else f"files-{number + 1}"))
        found.append(StoreSource(self.store, list(KINDS)))
        return found

    async def _synced(self) -> None:
        """Every source has told what it has. A source that cannot even begin ends the start."""
        assert self._following is not None
        synced = asyncio.create_task(self.catalogue.synced())
        await asyncio.wait((synced, self._following), return_when=asyncio.FIRST_COMPLETED)
        if not synced.done():
            synced.cancel()
            try:
                self._following.result()
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from None

    # xDS

    async def _serve_xds(self) -> None:
        settings = self.settings
        if settings.xds is not None:
            self.xds_servers["xds"] = DiscoveryServer(
                [self._discovery_service(None), self._health_service(None), ClientStatusService(self.hub, None)],
                *settings.xds,
            )
        if settings.secure_xds is not None:
            context = self.certificates.context("h2", client_certificates=True)
            services = [
                self._discovery_service(self.admission.admit),
                self._health_service(self.admission.admit_for_health),
                ClientStatusService(self.hub, self.admission.admit_operator),
                CertificateService(self.citadel.issuance, self.citadel.credentials, self.citadel.authority),
            ]
            self.xds_servers["secureXds"] = DiscoveryServer(services, *settings.secure_xds, context)
        for server in self.xds_servers.values():
            await server.start()

    def _discovery_service(self, admit: Admit | None) -> DiscoveryService:
        return DiscoveryService(
            self.hub,
            admit=admit,
            on_connected=self._connected,
            on_disconnected=self.registration.disconnected,
            on_health=self.registration.report_health,
        )

    def _health_service(self, admit: Admit | None) -> HealthService:
        return HealthService(admit=admit, probe_of=self._probe_of, report=self.registration.report_health)

    def _probe_of(self, proxy: Proxy) -> Any:
        group = self.catalogue.resources.get(ResourceKey("WorkloadGroup", proxy.namespace, group_of(proxy)))
        return None if group is None else group.spec.probe

    async def _connected(self, proxy: Proxy) -> bool:
        """A proxy's stream has begun: its workload is in the mesh before the proxy is told what the mesh is."""
        try:
            registered = await self.registration.connected(proxy)
        except RegistrationFailed as error:
            raise NotAdmitted(str(error)) from error
        self.analysis.changed()
        return registered

    # REST

    async def _serve_api(self) -> None:
        settings = self.settings
        application = Application(
            ShownStore(self.store),
            KINDS,
            parse,
            self.citadel.credentials,
            tokens=self.citadel.tokens,
            certificates=self.citadel.issuance,
            operations=self.citadel.operations,
            routes=[
                *operator_routes(
                    self.hub,
                    self.pilot,
                    RestDiscovery(self.hub, self.admission.believed),
                    self.addresses,
                    lambda: self.catalogue.problems,
                ),
                metrics_route(self.citadel.figures.text),
            ],
            rules=RULES,
            names=settings.names,
            origin_of=self._origin_of,
            version=_version(),
            ready=lambda: self._following is not None and not self._following.done(),
        )
        self.api = ApiServer(
            application, *settings.api, self.certificates.context("http/1.1", client_certificates=True)
        )
        await self.api.start()
        await self._keep_kubeconfig()

    async def _keep_kubeconfig(self) -> None:
        """Its authority is all roots that are trusted; copies of it find the way from an older root."""
        kubeconfig = self.settings.data_dir / "admin.kubeconfig"
        await keep_admin_kubeconfig(kubeconfig, self.api.url, self.citadel.tokens, self.citadel.authority)

    async def _follow_roots(self) -> None:
        changed = asyncio.Event()
        self.citadel.authority.listeners.append(changed.set)
        roots = self.citadel.authority.pem
        while True:
            await changed.wait()
            changed.clear()
            if self.citadel.authority.pem != roots and hasattr(self, "api"):
                await self._keep_kubeconfig()
                roots = self.citadel.authority.pem

    def _origin_of(self, key: ResourceKey) -> Origin | None:
        """Where a resource comes from that the API must not change."""
        resource = self.catalogue.resources.get(key)
        return None if resource is None or resource.origin.source == "api" else resource.origin

    def addresses(self) -> dict[str, str]:
        """Where what is served, HOST:PORT by name."""
        found = {name: _text(server.address) for name, server in self.xds_servers.items()}
        found["api"] = _text((self.api.host, self.api.port))
        return found

    @property
    def greeting(self) -> str:
        """One line that says where everything is."""
        where = ", ".join(f"{name} on {address}" for name, address in self.addresses().items())
        kubeconfig = self.settings.data_dir / "admin.kubeconfig"
        return f"serving {len(self.catalogue.resources)} resources: {where}; kubeconfig: {kubeconfig}"

    # the end

    async def failed(self) -> str:
        """Wait for what must not end, and say why it did."""
        assert self._following is not None
        await asyncio.wait((self._following,))
        error = self._following.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        return f"{type(error).__name__}: {error}"

    async def stop(self) -> None:
        """Stop serving, the last thing that was started first. Proxies go on with what they have."""
        if hasattr(self, "registration"):
            self.registration.stop()
        if hasattr(self, "citadel"):
            self.citadel.bundles.close()
        if hasattr(self, "api"):
            await self.api.stop()
        for server in self.xds_servers.values():
            await server.stop()
        self.xds_servers.clear()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if hasattr(self, "hub"):
            self.hub.close()
        if hasattr(self, "certificates"):
            await self.certificates.stop()
        if hasattr(self, "citadel"):
            await self.citadel.close()
        if hasattr(self, "store"):
            await self.store.close()


async def _open_store(settings: Settings) -> OpenStore:
    """The store that the settings name, and those that share it. Raises InvalidSetting."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return await open_store(settings.store or str(settings.data_dir / "store.sqlite"))
    except (ValueError, Unavailable) as error:
        raise InvalidSetting(f"--store: {error}") from None


async def _open_citadel(store: Store, settings: Settings) -> Citadel:
    """The certificate authority that the settings and the store make. Raises InvalidSetting."""
    passphrase = settings.ca_passphrase
    try:
        if settings.ca_passphrase_file is not None:
            passphrase = read_secret_file(settings.ca_passphrase_file).decode().rstrip("\r\n")
            if not passphrase:
                raise InvalidSetting(f"--ca-passphrase-file {settings.ca_passphrase_file}: is empty")
        return await Citadel.open(
            store,
            settings.data_dir,
            trust_domain=settings.trust_domain,
            key_type=settings.ca_key_type,
            passphrase=passphrase,
            ca_directory=settings.ca_directory,
            cluster=find_cluster(settings.token_review) if settings.token_review else None,
            lifetimes=Lifetimes(settings.workload_lifetime, settings.longest_workload_lifetime),
        )
    except UnicodeDecodeError:
        raise InvalidSetting(f"--ca-passphrase-file {settings.ca_passphrase_file}: is not text in UTF-8") from None
    except InvalidCluster as error:
        raise InvalidSetting(f"--token-review: {error}") from None
    except InvalidAuthority as error:
        raise InvalidSetting(f"the certificate authority: {error}") from None
    except (CannotUnseal, CannotIssue) as error:
        raise InvalidSetting(f"the certificate authority cannot be opened: {error}") from None


def _mesh_config(settings: Settings) -> MeshConfig | None:
    """The mesh's configuration in the file that the settings name. Raises InvalidSetting with all that is wrong with it."""
    if settings.mesh_config is None:
        return None
    found, problems = read_mesh_config_file(str(settings.mesh_config))
    if problems:
        raise InvalidSetting("--mesh-config: " + "\n".join(map(str, problems)))
    return found


def _version() -> str:
    try:
        return metadata.version("mizzen")
    except metadata.PackageNotFoundError:
        return "unreleased"


def _instance(data_dir: Path) -> str:
    """A name of this control plane that stays, made at its first start."""
    path = data_dir / "instance"
    if not path.exists():
        path.write_text(uuid.uuid4().hex)
    return path.read_text().strip()


async def supervised(what: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run something again, after a while, if it fails: what serves goes on without it meanwhile."""
    pause = 1.0
    while True:
        try:
            await run()
            return
        except Exception:
            log.exception("%s: failed; again in %.0f s", what, pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 30.0)


def _text(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
