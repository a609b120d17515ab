"""A node: what it is made of, and the order in which that starts and stops."""

import asyncio
import random
from collections.abc import Mapping
from functools import partial
from importlib import metadata

import structlog

from roomtape.v1 import (
    application_pb2_grpc,
    file_pb2_grpc,
    ingest_pb2_grpc,
    room_pb2_grpc,
    task_pb2_grpc,
    webhook_pb2_grpc,
)
from roomtape_service import failpoints
from roomtape_service.clock import Clock, SteadyClock
from roomtape_service.clock_anchor import ClockAnchor
from roomtape_service.database import applications as application_rows
from roomtape_service.database import manifests, spooled
from roomtape_service.database.database import Database
from roomtape_service.database.segments import SegmentRow
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.events.log import EventLog
from roomtape_service.events.retention import Retention
from roomtape_service.http.playback import Playback
from roomtape_service.ids import Ids
from roomtape_service.ingest.grpc import IngestServicer
from roomtape_service.library.abandoning import Abandoning
from roomtape_service.library.deleting import Deleting
from roomtape_service.library.expiry import Expiry
from roomtape_service.library.joining import Joining
from roomtape_service.library.joins import Joins
from roomtape_service.library.removing import Removals
from roomtape_service.manifest.writer import ManifestWriter
from roomtape_service.operations import Operations
from roomtape_service.recording.front.pool import WorkerPool
from roomtape_service.rooms.participants import Participants
from roomtape_service.rooms.rooms import Rooms
from roomtape_service.rpc.applications import ApplicationServicer
from roomtape_service.rpc.files import FileServicer, Library
from roomtape_service.rpc.recording import RecordingServicer
from roomtape_service.rpc.room import RoomServicer
from roomtape_service.rpc.server import RpcServer
from roomtape_service.rpc.watch import WatchService, WatchSettings
from roomtape_service.rpc.webhook_messages import UrlPolicy
from roomtape_service.rpc.webhooks import WebhookServicer
from roomtape_service.settings import Address, Settings, SettingsError
from roomtape_service.spool.cleaning import remove_empty_folders, remove_stored
from roomtape_service.spool.identity import claim_spool, spool_problem
from roomtape_service.spool.quota import Watermarks
from roomtape_service.spool.watching import SpoolWatch
from roomtape_service.storage.clients import S3Clients
from roomtape_service.storage.credential_readers import make_sources
from roomtape_service.storage.expiring import ExpiringCredentials
from roomtape_service.storage.kinds import installed_kinds
from roomtape_service.storage.part import PART_BYTES
from roomtape_service.storage.renewing import RenewedCredentials
from roomtape_service.storage.secrets import SecretBox, load_or_create_key
from roomtape_service.storage.stores import Stores
from roomtape_service.storage.upload import Uploads
from roomtape_service.tasks.facts import Facts
from roomtape_service.tasks.holding import RESUME_WAIT_NS, Holding
from roomtape_service.tasks.orders import TaskOrders
from roomtape_service.tasks.restore import restore
from roomtape_service.tasks.segments import SegmentFacts
from roomtape_service.tasks.spool_guard import SpoolGuard
from roomtape_service.tasks.tasks import Tasks
from roomtape_service.tasks.unended import Unended
from roomtape_service.webhooks.deliveries import LONGEST_END_SECONDS, Deliveries
from roomtape_service.webhooks.guard import AddressGuard
from roomtape_service.webhooks.retention import WebhookRetention
from roomtape_service.webhooks.sender import Sender

__all__ = ["CLOCK_NAME", "SOCKET_NAME", "Node"]

SOCKET_NAME = "node.sock"
"""The Unix socket below `Settings.run_dir` on which workers find their node."""

CLOCK_NAME = "clock.json"
"""The file in the data folder that says where UTC stood."""

log = structlog.get_logger(__name__)


class Node:
    """One node. `start` returns when it serves; `aclose` is idempotent and waits until everything is stored."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        ids: Ids,
        randomness: random.Random,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is where credential sources find their variables."""
        self._environment = environment or {}
        self._settings = settings
        self._clock = SteadyClock(clock)
        self._ids = ids
        self._random = randomness
        self._background: list[asyncio.Task[None]] = []
        self._closing: asyncio.Task[None] | None = None
        self._built = False

    @property
    def port(self) -> int:
        """The port on which gRPC is served, once started."""
        return self._server.port

    @property
    def http_address(self) -> str:
        """The host and port from which files are played, once started."""
        return str(Address(self._settings.http_listen.host, self._playback.port))

    async def wait_for_worker(self, timeout_seconds: float) -> bool:
        """Whether a worker is there, or comes within the time."""
        return await self._pool.wait_for_worker(timeout_seconds)

    async def start(self) -> None:
        """Opens, takes up what the last node left, and serves."""
        self._build()
        self._built = True
        settings = self._settings
        settings.spool_dir.mkdir(parents=True, exist_ok=True)
        await self._database.open()
        await self._check_spool()
        await self._create_default_application()
        # Before anything new is recorded, all that was recorded is known.
        anchor = ClockAnchor.read(settings.data_dir / CLOCK_NAME)
        await restore(
            self._database,
            self._pool,
            self._facts,
            self._rooms,
            self._tasks,
            self._unended,
            self._clock,
            anchor,
        )
        ClockAnchor.keep(settings.data_dir / CLOCK_NAME, self._clock.now_ns())
        await asyncio.to_thread(remove_empty_folders, settings.spool_dir)
        await self._abandoning.take_up()
        await self._log.start()
        # Recording does not begin on a full disk only to end again.
        await self._spool_watch.look()
        await self._pool.start()
        await self._playback.start()
        self._background = [
            asyncio.create_task(self._uploads.run(), name="uploads"),
            asyncio.create_task(self._manifests.run(), name="manifests"),
            asyncio.create_task(self._holding.run(), name="holding"),
            asyncio.create_task(self._unended.run(), name="unended"),
            asyncio.create_task(self._retention.run(), name="retention"),
            asyncio.create_task(self._deliveries.run(), name="deliveries"),
            asyncio.create_task(self._webhook_retention.run(), name="webhook-retention"),
            asyncio.create_task(self._spool_watch.run(), name="spool-watch"),
            asyncio.create_task(self._removals.run(), name="removals"),
            asyncio.create_task(self._expiry.run(), name="expiry"),
            asyncio.create_task(self._joins.run(), name="joins"),
            asyncio.create_task(self._expiring_credentials.run(), name="expiring-credentials"),
            asyncio.create_task(self._renewed_credentials.run(), name="renewed-credentials"),
        ]
        await self._server.start()

    async def aclose(self) -> None:
        """Stops in order."""
        if not self._built:
            return
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        # 1. Calls end, publishers are told what is safe and watchers where to go on (see `_drain_publishers`).
        await self._server.aclose()
        # 2. What callers set in motion before they went away reaches its end.
        await self._operations.aclose()
        # 3. Nothing records any more; what the workers said last is stored.
        await self._pool.aclose()
        await self._facts.drain()
        # 4. Receivers have a while to answer what they were sent; what they don't is sent again after the next start.
        await self._deliveries.aclose()
        # 5. Uploads and manifests stop where they are: what is not confirmed is taken up at the next start.
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._joins.aclose()
        await self._uploads.aclose()
        await self._expiry.aclose()
        await self._removals.aclose()
        await self._playback.aclose()
        await self._expiring_credentials.aclose()
        await self._renewed_credentials.aclose()
        await self._stores.aclose()
        await self._log.aclose()
        # 6. Last, since all of the above write to it.
        await self._database.aclose()
        log.info("node_stopped")

    def _build(self) -> None:
        settings, clock, ids = self._settings, self._clock, self._ids
        version = metadata.version("roomtape-service")
        key = load_or_create_key(settings.secret_key_file)
        secret_box = SecretBox(key)
        self._operations = Operations()
        self._database = Database(settings.database_url, clock)
        guard = AddressGuard([network.value for network in settings.webhook_allowed_networks])
        self._log = EventLog(self._database)
        clients = S3Clients()
        sources = make_sources(settings.credential_sources, clients, clock, self._environment)
        self._stores = Stores(
            settings.storage_root,
            secret_box,
            clients=clients,
            sources=sources,
            kinds=installed_kinds(),
            clock=clock,
            randomness=self._random,
        )
        self._expiring_credentials = ExpiringCredentials(self._database, sources, clock)
        self._renewed_credentials = RenewedCredentials(sources, self._credentials_renewed)
        self._uploads = Uploads(
            self._database,
            self._stores,
            clock,
            manifests.changed,
            remove_stored,
            randomness=self._random,
            part_bytes=failpoints.overrides().part_bytes or PART_BYTES,
            mend=self._mend,
        )
        self._manifests = ManifestWriter(
            self._database,
            self._stores,
            clock,
            service_version=version,
            randomness=self._random,
        )
        self._facts = Facts(
            self._database,
            SegmentFacts(self._stores, ids),
            self._uploads.wake,
            settings.spool_dir,
            on_grown=self._uploads.grown,
        )
        self._pool = WorkerPool(
            settings.run_dir / SOCKET_NAME,
            settings.spool_dir,
            self._facts.report,
            self._facts.recovered,
            self._facts.known,
            on_full=self._spool_refused,
            waits_for_disk=settings.durability == "power",
        )
        self._rooms = Rooms(self._database, self._pool, self._operations, clock, ids)
        self._participants = Participants(self._rooms, self._database, self._operations, clock, ids)
        self._tasks = Tasks(self._pool, clock, ids)
        spool_guard = SpoolGuard(self._database, self._tasks, self._pool, lambda: self._spool_watch.state)
        self._spool_watch = SpoolWatch(
            settings.spool_dir,
            Watermarks(
                settings.spool_quota_bytes,
                settings.spool_warn_percent,
                settings.spool_refuse_percent,
                settings.spool_reserve_bytes,
            ),
            clock,
            spool_guard.changed,
        )
        self._orders = TaskOrders(
            self._database,
            self._rooms,
            self._tasks,
            self._pool,
            self._log,
            self._operations,
            ids,
            spool_guard.require_room,
        )
        self._rooms.listen(self._tasks)
        self._rooms.listen(self._orders)
        self._unended = Unended(
            self._database, self._pool, self._rooms, self._tasks, self._clock, wait_ns=RESUME_WAIT_NS
        )
        self._holding = Holding(self._rooms, self._participants, self._tasks, self._orders, clock)
        self._retention = Retention(
            self._database,
            self._log,
            clock,
            keep_seconds=settings.event_retention_hours * 3600,
            keep_events=settings.event_retention_count,
            keep_bytes=settings.event_retention_bytes,
        )
        self._deliveries = Deliveries(
            self._database,
            Sender(guard, clock, version=version),
            secret_box,
            clock,
            parallel=settings.webhook_parallel_requests,
            timeout_seconds=settings.webhook_timeout_seconds,
            randomness=self._random,
            end_seconds=min(settings.drain_seconds, LONGEST_END_SECONDS),
        )
        self._webhook_retention = WebhookRetention(
            self._database,
            clock,
            keep_seconds=settings.webhook_delivered_hours * 3600,
            keep_delivered=settings.webhook_delivered_count,
        )
        self._playback = Playback(settings, self._database, self._stores, secret_box, clock)
        self._removals = Removals(self._database, self._stores, clock, randomness=self._random)
        self._expiry = Expiry(self._database, self._removals, clock)
        self._abandoning = Abandoning(
            self._database, settings.spool_dir, self._operations, self._uploads.stop
        )
        self._joins = Joins(
            self._database,
            self._stores,
            settings.spool_dir,
            clock,
            ids,
            on_spooled=self._uploads.wake,
            has_room=self._spool_watch.has_room,
            randomness=self._random,
        )
        library = Library(
            Deleting(self._database, self._removals),
            self._abandoning,
            Joining(self._database, self._stores, ids, self._joins.wake),
        )
        self._ingest = IngestServicer(self._rooms, self._participants, self._pool, clock)
        self._watch = WatchService(
            self._database,
            self._log,
            self._random,
            WatchSettings(
                streams_per_application=settings.watch_streams_per_application,
                stall_seconds=settings.watch_stall_seconds,
            ),
        )
        recording = RecordingServicer(self._database, self._rooms, self._tasks, self._orders, self._log)
        room = RoomServicer(self._database, self._rooms, self._participants)
        files = FileServicer(self._database, self._stores, self._playback, library, clock)
        applications = ApplicationServicer(
            self._database, self._stores, secret_box, ids, self._application_changed
        )
        webhooks = WebhookServicer(
            self._database,
            secret_box,
            clock,
            ids,
            UrlPolicy(settings.webhook_http == "allow", guard.allows),
            webhooks_per_application=settings.webhooks_per_application,
        )
        self._server = RpcServer(
            settings,
            [
                partial(task_pb2_grpc.add_RecordingServiceServicer_to_server, recording),
                partial(room_pb2_grpc.add_RoomServiceServicer_to_server, room),
                partial(ingest_pb2_grpc.add_IngestServiceServicer_to_server, self._ingest),
                partial(file_pb2_grpc.add_FileServiceServicer_to_server, files),
                partial(application_pb2_grpc.add_ApplicationServiceServicer_to_server, applications),
                partial(webhook_pb2_grpc.add_WebhookServiceServicer_to_server, webhooks),
                self._watch.register,
            ],
            [self._drain_publishers, self._watch.drain],
            clock,
            ids,
        )

    async def _mend(self, row: SegmentRow) -> bool:
        return await (self._joins if row.joined else self._facts).mend(row)

    def _spool_refused(self) -> None:
        self._spool_watch.refused()

    def _application_changed(self) -> None:
        # Files may wait for its store to be mended.
        self._uploads.settings_changed()
        self._manifests.wake()
        self._removals.retry_now()
        self._joins.retry_now()
        self._expiring_credentials.wake()

    async def _credentials_renewed(self) -> None:
        await self._uploads.retry_troubled()
        await self._manifests.retry_troubled()
        self._removals.retry_now()
        self._joins.retry_now()

    async def _check_spool(self) -> None:
        """Raises SettingsError for a spool that is not the database's, before anything of it is given up."""
        settings, epoch = self._settings, self._database.epoch
        awaited = await self._database.read(spooled.unsettled_recordings)
        problem = await asyncio.to_thread(
            spool_problem, settings.spool_dir, epoch, awaits_files=bool(awaited)
        )
        if problem is not None:
            if settings.spool_mismatch == "refuse":
                raise SettingsError(
                    [
                        f"data_dir: {problem}; mount or move the right one there, or start once with "
                        "--spool-mismatch accept, which gives up what is not there"
                    ]
                )
            log.warning("spool_accepted", problem=problem)
        await asyncio.to_thread(claim_spool, settings.spool_dir, epoch)

    async def _drain_publishers(self) -> None:
        # Workers close their segments first, so that the goodbye acknowledges all that was sent and the watchers, who
        # are drained next, still see the segments complete.
        self._ingest.stop_reading()
        await self._pool.shutdown(self._settings.drain_seconds)
        await self._facts.drain()
        await self._ingest.drain()

    async def _create_default_application(self) -> None:
        app_id = self._settings.create_default_application
        if not app_id:
            return

        async def work(uow: UnitOfWork) -> None:
            if await application_rows.find(uow.connection, app_id) is None:
                await application_rows.add(uow, application_rows.ApplicationRecord(app_id))

        await self._database.write(work)
