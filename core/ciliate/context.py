"""What a plugin gets at setup: its configuration and every service of the host, as one typed value."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

    from ciliate.batches import Batches
    from ciliate.events import Events
    from ciliate.health import Health
    from ciliate.leadership import Leadership
    from ciliate.maps.registry import MapRegistry
    from ciliate.metrics import Metrics
    from ciliate.recorder import Recorder
    from ciliate.store import Store
    from ciliate.supervision import Supervisor
    from ciliate.tables.hub import PluginTables
    from ciliate.worker import Worker

T = TypeVar("T")
TaskFactory = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class NodePlace:
    """Which node of which cluster this process serves, and where it keeps things."""

    name: str
    cluster: str
    role: str  # agent, operator, or what `ciliate run` names
    process: str  # names the API socket: <run_dir>/<process>.sock
    run_dir: Path
    state_dir: Path
    bpffs: Path
    namespace: str = "kube-system"  # where the cluster's objects of our own are


class MissingServiceError(Exception):
    """No enabled plugin of this process provides what another requires."""


@dataclass
class Services:
    """Objects that one plugin provides to others of its process, by their contract (a Protocol of a model package)."""

    _by_type: dict[type, tuple[str, object]] = field(default_factory=dict)

    def provide(self, contract: type[T], instance: T, plugin: str) -> None:
        """Offer an instance under its contract; a second provider is refused."""
        if contract in self._by_type:
            other = self._by_type[contract][0]
            raise ValueError(f"{plugin}: {contract.__name__} is already provided by plugin {other}; enable one of them")
        self._by_type[contract] = (plugin, instance)

    def require(self, contract: type[T], plugin: str) -> T:
        """The instance of a contract. Raises MissingServiceError."""
        if contract not in self._by_type:
            raise MissingServiceError(
                f"{plugin} requires {contract.__module__}.{contract.__name__}, which no plugin of this process"
                " provides; enable one that does under `plugins:`"
            )
        return cast("T", self._by_type[contract][1])


@dataclass(frozen=True)
class Context:
    """The host, as one plugin sees it."""

    plugin: str
    config: Any  # the plugin's own Section, validated
    node: NodePlace
    tables: PluginTables
    events: Events
    batches: Batches  # the data path's events, as column batches
    maps: MapRegistry
    store: Store
    recorder: Recorder  # sentences about objects, as Kubernetes Events
    worker: Worker  # the one thread for kernel calls that wait
    metrics: Metrics
    health: Health  # of this plugin: says ready, or why not
    unready: Callable[[], dict[str, list[str]]]  # why this process is not ready: reasons by plugin; empty: it is
    log: BoundLogger
    supervisor: Supervisor
    services: Services
    leadership: Leadership | None  # of an operator

    def spawn(self, name: str, factory: TaskFactory) -> None:
        """Run a coroutine function for the plugin's life; a failure restarts it with back-off and is shown."""
        self.supervisor.spawn(self.plugin, name, factory)

    def lead(self, name: str, factory: TaskFactory) -> None:
        """Operator: as `spawn`, while this process leads; cancelled when it ceases to, which may be at any await."""
        if self.leadership is None:
            raise RuntimeError(f"{self.plugin}: `lead` is for the role operator; this process is {self.node.role}")
        self.spawn(name, partial(self.leadership.while_leading, factory))

    def provide(self, contract: type[T], instance: T) -> None:
        """Offer a service to the other plugins of this process, during setup."""
        self.services.provide(contract, instance, self.plugin)

    def require(self, contract: type[T]) -> T:
        """A service of another plugin that `needs` names. Raises MissingServiceError."""
        return self.services.require(contract, self.plugin)
