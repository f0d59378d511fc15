"""The host: one process that imports the enabled plugins, sets them up, keeps them running and stops them."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from ciliate import __version__, directory
from ciliate.api.server import ApiServer, SocketInUseError
from ciliate.batches import Batches
from ciliate.config import CORE_SECTIONS, ConfigError, CoreConfig, Settings, core_config
from ciliate.context import Context, NodePlace, Services
from ciliate.drain import EventRing
from ciliate.events import Events
from ciliate.garbage import importing, spare_the_old
from ciliate.health import Health
from ciliate.kernel.errors import KernelError
from ciliate.kernel.probe import Feature, lacking
from ciliate.leadership import Leadership, candidate
from ciliate.loading import Loaded, available, load_driver, load_plugins
from ciliate.maps.ownership import MapOwnedError
from ciliate.maps.registry import MapRegistry
from ciliate.maps.spec import MapKind
from ciliate.metrics import Metrics
from ciliate.peers import open_peers
from ciliate.places import node_place, open_store
from ciliate.plugin import Plugin
from ciliate.probes import ProbeServer
from ciliate.recorder import Recorder
from ciliate.store import Kind, StoreError
from ciliate.supervision import SupervisedTask, Supervisor
from ciliate.tables.file import TableFile, TableFileError
from ciliate.tables.hub import PluginTables, Tables
from ciliate.watch import LoopWatch
from ciliate.worker import Worker

log = structlog.get_logger("host")
LAG_INTERVAL = 0.05
STORE = "store"  # beside plugins' names, where reasons are given
OPERATOR = "operator"
"""The role of a process that is of no node: no maps are made for it, and one in a cluster leads."""


class StartError(Exception):
    """This process can't run here and now; the message says why, and how to mend it."""


@dataclass
class Host:
    """One process's plugins and everything that they share."""

    settings: Settings
    config: CoreConfig
    place: NodePlace
    loaded: Loaded
    metrics: Metrics = field(default_factory=Metrics)
    events: Events = field(default_factory=Events)
    services: Services = field(default_factory=Services)
    healths: dict[str, Health] = field(default_factory=dict)
    hook_seconds: dict[str, dict[str, float]] = field(default_factory=dict)  # by plugin and hook
    started: float = field(default_factory=time.time)
    leadership: Leadership | None = None

    @classmethod
    def load(cls, settings: Settings, process: str, role: str) -> Host:
        """Import the enabled plugins of a role. Raises ConfigError on a bad setting or an unknown section."""
        config = core_config(settings)
        for section in settings.tree:
            if section not in CORE_SECTIONS and section not in config.plugins and section not in available():
                raise ConfigError(
                    f"{section} ({settings.origin(section)}): neither a section of the core nor a plugin;"
                    f" known are {', '.join(sorted(CORE_SECTIONS | set(available())))}"
                )
        loaded = load_plugins(config.plugins, role, process, config.processes)
        for name, plugin in loaded.plugins.items():
            settings.section(name, plugin.config)
        return cls(settings, config, node_place(config, process, role), loaded)

    def kinds(self) -> list[Kind]:
        """Kinds that plugins add."""
        return [kind for kinds in self.loaded.manager.hook.ciliate_kinds() for kind in kinds]

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Set up, serve until a signal (or `stop`), and stop in reverse."""
        stop = stop or asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            await self.start()
            await stop.wait()
        finally:
            await self.stop()

    async def start(self) -> None:
        """Open what plugins share, set them up in order, then serve the API."""
        for name, reason in self.loaded.refused.items():
            log.error("plugin refused", plugin=name, reason=reason)
        api = ApiServer(self.place.run_dir / f"{self.place.process}.sock")
        api.claim()  # before anything is opened that another process of this name may be writing
        self.tables = Tables(TableFile(self.place.state_dir / "tables" / f"{self.place.process}.sqlite"))
        self.tables.leaving = self._leaving
        if dropped := self.tables.drop_left(self._enabled):
            log.info("tables of disabled plugins are deleted", tables=dropped)
        self.tables.declared, self.events.declared = self._declared("ciliate_tables"), self._declared("ciliate_topics")
        self.worker = Worker()
        self.batches = Batches(self.config.events.batch)
        shared = self.config.events.shared
        self.peers = open_peers(self.config.node, self.place, self.tables, self.events, self.batches, shared)
        self.supervisor = Supervisor(self._task_changed)
        packages = {type(plugin).__module__.partition(".")[0]: name for name, plugin in self.loaded.plugins.items()}
        self.watch = LoopWatch(asyncio.get_running_loop(), packages)
        self.maps = MapRegistry(self.place.bpffs)
        self.store = open_store(self.config, self.kinds())
        self.store.observe(self.metrics)
        self.recorder = Recorder(self.store, f"ciliate-{self.place.process}", self.place.name)
        if self.place.role == OPERATOR:
            name = candidate(self.place.run_dir, self.place.process)
            self.leadership = Leadership(self.store, self.config.operator, self.place.namespace, name)
        self.api = api
        spare_the_old()
        await self.api.start()
        self._declare_maps()
        for name, plugin in list(self.loaded.plugins.items()):
            self._setup(name, plugin)
        for name, plugin in self.loaded.plugins.items():
            self._offer_programs(name, plugin)
        self._start_drain()
        if self.leadership is not None:
            self.supervisor.spawn("core", "leadership", self.leadership.run)
        self.supervisor.spawn("core", "recorder", self.recorder.run)
        self.supervisor.spawn("core", "tables", self.tables.run)
        self.supervisor.spawn("core", "peers", self.peers.run)
        self.supervisor.spawn("core", "loop-lag", self._measure_lag)
        if self.config.health.listen:
            self.supervisor.spawn("core", "probes", ProbeServer(self.config.health.listen, self.ready).run)
        self._add_routes()
        self._publish()
        self.tables.changed = self._publish
        if self.config.metrics.listen:
            self.metrics.serve(self.config.metrics.listen)
        log.info("started", process=self.place.process, plugins=list(self.loaded.plugins), node=self.place.name)

    async def stop(self) -> None:
        """Stop plugins in the reverse order of setup, then what they share."""
        if hasattr(self, "supervisor"):
            for name, plugin in reversed(list(self.loaded.plugins.items())):
                await self.supervisor.stop(name)
                try:
                    self._ask(name, plugin, "ciliate_stop")
                except Exception:
                    log.exception("plugin failed to stop", plugin=name)
            await self.supervisor.stop("core")
        if hasattr(self, "api"):
            directory.withdraw(self.place.run_dir, self.place.process)
            await self.api.stop()
            self.watch.close()
            self.batches.detach()
            self.worker.close()
            await self.store.close()
            self.tables.close()
        log.info("stopped", process=self.place.process)

    def ready(self) -> dict[str, list[str]]:
        """Why the process is not ready: reasons by essential plugin; empty if it is."""
        return {name: reasons for name, reasons in self._complaints().items() if self._is_essential(name)}

    def degraded(self) -> dict[str, list[str]]:
        """What is wrong with plugins that are not essential: the process is ready nevertheless."""
        return {name: reasons for name, reasons in self._complaints().items() if not self._is_essential(name)}

    def _is_essential(self, name: str) -> bool:
        """Not the store: who lacks what it has says so, and who has what he needs goes on without it."""
        return name == "core" or (name != STORE and self.loaded.is_essential(name))

    def _complaints(self) -> dict[str, list[str]]:
        reasons = {name: health.reasons for name, health in self.healths.items() if health.reasons}
        reasons.update({name: [reason] for name, reason in self.loaded.refused.items()})
        for task in self.supervisor.tasks:
            if task.state in ("waiting", "disabled"):
                reasons.setdefault(task.plugin, []).append(f"task {task.name} is {task.state}: {task.last_error}")
        if problems := self.store.problems():
            reasons[STORE] = list(problems)
        return reasons

    @property
    def _enabled(self) -> set[str]:
        return {*self.config.plugins, *self.loaded.plugins}

    @property
    def _leaving(self) -> set[str]:
        """Plugins whose maps and tables go when they are disabled."""
        return {name for name, plugin in self.loaded.plugins.items() if not plugin.essential}

    def _declare_maps(self) -> None:
        if dropped := self.maps.drop_left(self.place.process, self._enabled):
            log.info("maps of disabled plugins are deleted", maps=dropped)
        self.maps.leaving = dict.fromkeys(self._leaving, self.place.process)
        declared = False
        for name, plugin in self.loaded.plugins.items() if self.place.role != OPERATOR else ():
            for spec in self._ask(name, plugin, "ciliate_maps"):
                self.maps.declare(spec, name)
                declared = True
        if declared:
            self.maps.create()

    def _setup(self, name: str, plugin: Plugin) -> None:
        """Set one plugin up; what it raises refuses it, and those that need it in this process."""
        lacking = [need for need in plugin.needs_same_process if need not in self.loaded.plugins]
        try:
            if lacking:
                raise RuntimeError(f"needs {', '.join(lacking)}, which was refused")
            health = self.healths[name] = Health(name)
            if plugin.essential:
                self.supervisor.essential.add(name)
            context = self._context(name, plugin, health)
            self._ask(name, plugin, "ciliate_setup", context)
        except Exception as error:
            log.error("plugin refused", plugin=name, reason=f"{type(error).__name__}: {error}", exc_info=error)
            self.loaded.refused[name] = f"setup failed: {type(error).__name__}: {error}"
            del self.loaded.plugins[name]
            self.healths.pop(name, None)
            self.loaded.manager.unregister(name=name)

    def _offer_programs(self, name: str, plugin: Plugin) -> None:
        for wanted in self._ask(name, plugin, "ciliate_programs"):
            offer = load_driver("ciliate.points", "keeper")
            keep = partial(offer, wanted, name, self.maps, self.worker, self.healths[name])
            self.supervisor.spawn(name, f"program {wanted.program}", keep)

    def _context(self, name: str, plugin: Plugin, health: Health) -> Context:
        declared = self._ask(name, plugin, "ciliate_tables")
        return Context(
            plugin=name,
            config=self.settings.section(name, plugin.config),
            node=replace(self.place, role=self.loaded.roles.get(name, self.place.role)),
            tables=PluginTables(self.tables, name, frozenset(spec.name for spec in declared)),
            events=self.events,
            batches=self.batches,
            maps=self.maps,
            store=self.store,
            recorder=self.recorder,
            worker=self.worker,
            metrics=self.metrics,
            health=health,
            unready=self.ready,
            log=structlog.get_logger(name),
            supervisor=self.supervisor,
            services=self.services,
            leadership=self.leadership,
        )

    def _start_drain(self) -> None:
        if self.config.events.drain != self.place.process:
            return
        for ring in [spec for spec in self.maps.specs().values() if spec.kind is MapKind.RINGBUF]:
            lost = f"{ring.name}_lost"
            counter = self.maps.open(lost) if lost in self.maps.specs() else None
            self.batches.attach(EventRing(self.maps.open(ring.name, writable=True), counter))
            return

    def _ask(self, name: str, plugin: Plugin, hook: str, *arguments: object) -> Iterable[Any]:
        """What a plugin answers to a hook, nothing if it lacks it; the time that it took is noted."""
        began = time.perf_counter()
        answer = getattr(plugin, hook, _silent)(*arguments)
        self.hook_seconds.setdefault(name, {})[hook] = time.perf_counter() - began
        return () if answer is None else answer

    def _declared(self, hook: str) -> frozenset[str]:
        """Names of what this process's plugins declare by a hook."""
        names: set[str] = set()
        for name, plugin in self.loaded.plugins.items():
            try:
                names |= {spec.name for spec in self._ask(name, plugin, hook)}
            except Exception as error:
                log.error("hook failed", plugin=name, hook=hook, exc_info=error)
        return frozenset(names)

    def _publish(self) -> None:
        """Tell the node's other processes what is served here."""
        card = directory.Card(
            process=self.place.process,
            pid=os.getpid(),
            socket=str(self.api.path),
            version=__version__,
            plugins=list(self.loaded.plugins),
            tables=[table.spec.name for table in self.tables.written()],
            topics=sorted(self.events.declared),
            routes=[(route.method, route.pattern) for route in self.api.routes],
        )
        directory.publish(self.place.run_dir, card)

    def _add_routes(self) -> None:
        from ciliate.routes import core_routes  # the routes show the host, which they import

        self.api.add([*core_routes(self), *self.peers.routes()])
        for name, plugin in self.loaded.plugins.items():
            try:
                self.api.add(self._ask(name, plugin, "ciliate_routes"))
            except Exception:
                log.exception("plugin's routes are left out", plugin=name)

    def _task_changed(self, task: SupervisedTask) -> None:
        if task.state in ("waiting", "disabled"):
            self.metrics.task_failures.labels(task.plugin, task.name).inc()

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_INTERVAL
            await asyncio.sleep(LAG_INTERVAL)
            self.metrics.loop_lag.observe(max(0.0, loop.time() - due))


def _silent(*_: object) -> Iterable[Any]:
    return ()


def run_host(settings: Settings, process: str, role: str) -> None:
    """Run a process until it is told to stop. Raises ConfigError, StartError."""
    from ciliate.logs import configure_logs

    with importing():
        host = Host.load(settings, process, role)
    configure_logs(host.config.log)
    try:
        asyncio.run(host.run())
    except (SocketInUseError, MapOwnedError, TableFileError, StoreError, OSError) as error:
        log.debug("failed", exc_info=error)
        asked = isinstance(error, KernelError) and error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
        lacks = lacking(Feature, "Ciliate") if asked else ""
        raise StartError(f"{error}; {lacks}" if lacks else str(error)) from error
