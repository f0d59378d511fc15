"""Configuration: defaults, then a file or a ConfigMap's folder, then the environment, then flags.

Every value keeps its origin, so that a refusal and `ciliate config` can say where it came from.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from ciliate.plugin import Section

S = TypeVar("S", bound=msgspec.Struct)
ENVIRONMENT_PREFIX = "CILIATE_"
DEFAULT_FILE = Path("/etc/ciliate/ciliate.yaml")


class ConfigError(Exception):
    """A setting is refused; the message has its path, where it came from and what would be right."""


class NodeSection(Section):
    """Which node this is and where it keeps things."""

    name: str = ""  # empty: the host's name
    run_dir: str = "/run/ciliate"
    state_dir: str = "/var/lib/ciliate"
    bpffs: str = "/sys/fs/bpf/ciliate"
    peers: str = "sockets"  # driver that connects the node's processes; empty: they don't know of each other


class ClusterSection(Section):
    """The cluster's name, as in the label io.cilium.k8s.policy.cluster, and where we keep objects of our own."""

    name: str = "default"
    namespace: str = "kube-system"


class OperatorSection(Section):
    """The election of the operator that leads; seconds, with Cilium's names and defaults."""

    leader_election_lease_duration: float = 15.0  # for how long others leave a silent leader alone
    leader_election_renew_deadline: float = 10.0  # after which a leader that can't renew stops
    leader_election_retry_period: float = 2.0

    def __post_init__(self) -> None:
        lease, deadline = self.leader_election_lease_duration, self.leader_election_renew_deadline
        if not 0 < self.leader_election_retry_period < deadline < lease:
            raise ValueError(
                "leader_election_retry_period must be less than leader_election_renew_deadline,"
                " and that less than leader_election_lease_duration"
            )


class EventsSection(Section):
    """The data path's events."""

    drain: str = "agent"  # the process that drains the ring buffer
    batch: int = 8192  # records a batch at most
    shared: int = 32_768  # records that the ring for the node's other processes holds; 0: no such ring


class LogSection(Section):
    """Logs go to standard error."""

    level: str = "info"
    format: str = "console"  # or json


class MetricsSection(Section):
    """Prometheus metrics are always on the API socket; `listen` serves them over HTTP too."""

    listen: str = ""  # host:port


class HealthSection(Section):
    """Whether the process lives and is ready, over HTTP: /healthz and /readyz."""

    listen: str = ""  # host:port; empty: not served


class IsolationSection(Section):
    """What a third-party plugin's own process may use; `budgets` overrides it for plugins by name."""

    memory: str = "256M"
    cpu: float = 0.5  # of one CPU
    budgets: dict[str, dict[str, str | float]] = {}


class StoreSection(msgspec.Struct, kw_only=True):
    """Which store driver; what else is in the section belongs to the driver."""

    driver: str = "local"
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    origins: dict[str, str] = msgspec.field(default_factory=dict)  # of the options, by their path

    def checked(self, struct: type[S]) -> S:
        """The options as a driver's struct. Raises ConfigError, as `Settings.section` does."""
        return Settings({"store": self.options}, self.origins).section("store", struct)


class CoreConfig(msgspec.Struct, kw_only=True):
    """The sections of the core itself."""

    plugins: list[str] = msgspec.field(default_factory=list)
    processes: dict[str, list[str]] = msgspec.field(default_factory=dict)  # of the node; default: by plugins' roles
    node: NodeSection = msgspec.field(default_factory=NodeSection)
    cluster: ClusterSection = msgspec.field(default_factory=ClusterSection)
    events: EventsSection = msgspec.field(default_factory=EventsSection)
    log: LogSection = msgspec.field(default_factory=LogSection)
    metrics: MetricsSection = msgspec.field(default_factory=MetricsSection)
    health: HealthSection = msgspec.field(default_factory=HealthSection)
    isolation: IsolationSection = msgspec.field(default_factory=IsolationSection)
    operator: OperatorSection = msgspec.field(default_factory=OperatorSection)
    store: StoreSection = msgspec.field(default_factory=StoreSection)


_CORE_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "node": NodeSection,
    "cluster": ClusterSection,
    "events": EventsSection,
    "log": LogSection,
    "metrics": MetricsSection,
    "health": HealthSection,
    "isolation": IsolationSection,
    "operator": OperatorSection,
}


@dataclass
class Settings:
    """Layered values: a tree of sections, and the origin of every leaf by its dotted path."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def set(self, path: str, value: Any, origin: str) -> None:
        """Lay a value (a mapping is merged, all else replaces) at a dotted path."""
        if isinstance(value, Mapping):
            for key, inner in value.items():
                self.set(f"{path}.{key}" if path else str(key), inner, origin)
            return
        *parents, last = path.split(".")
        branch = self.tree
        for parent in parents:
            deeper = branch.setdefault(parent, {})
            if not isinstance(deeper, dict):
                raise ConfigError(f"{path} ({origin}): {parent} is a value, not a section")
            branch = deeper
        branch[last] = value
        self.origins[path] = origin

    def origin(self, path: str) -> str:
        """Where the value at a path, or the nearest one around or below it, came from."""
        probe = path
        while probe:
            if probe in self.origins:
                return self.origins[probe]
            below = next((o for known, o in self.origins.items() if known.startswith(probe + ".")), None)
            if below is not None:
                return below
            probe = probe.rpartition(".")[0]
        return "default"

    def section(self, name: str, struct: type[S]) -> S:
        """One section as its typed struct. Raises ConfigError with path, origin and the known keys."""
        values = self.tree.get(name, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{name} ({self.origin(name)}): must be a section with keys, not {values!r}")
        known = struct.__struct_fields__
        for key in values:
            if key not in known:
                path = f"{name}.{key}"
                raise ConfigError(f"{path} ({self.origin(path)}): unknown key; known are {', '.join(known) or 'none'}")
        try:
            return msgspec.convert(values, struct, strict=False)
        except (msgspec.ValidationError, ValueError) as error:
            message, _, where = str(error).partition(" - at `$.")
            path = f"{name}.{where.rstrip('`')}" if where else name
            raise ConfigError(f"{path} ({self.origin(path)}): {message}") from error


def load_settings(
    path: Path | None, flags: Iterable[str] = (), environment: Mapping[str, str] | None = None
) -> Settings:
    """All layers. path: a YAML file or a folder with a file a key (a mounted ConfigMap); flags: `section.key=value`."""
    settings = Settings()
    if path is not None:
        _load_path(settings, path)
    for name, value in sorted((os.environ if environment is None else environment).items()):
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            section, *keys = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
            settings.set(".".join([_spelled(section), *keys]), _scalar(value, name), f"environment {name}")
    for flag in flags:
        key, separator, value = flag.partition("=")
        if not separator or not key:
            raise ConfigError(f"flag --set {flag}: must be section.key=value")
        settings.set(key, _scalar(value, flag), f"flag --set {key}")
    return settings


def _load_path(settings: Settings, path: Path) -> None:
    if path.is_dir():
        for file in sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith(".")):
            if file.suffix in (".yaml", ".yml"):
                _load_file(settings, file)
            else:
                settings.set(file.name, _scalar(file.read_text().strip(), str(file)), str(file))
    elif path.exists():
        _load_file(settings, path)
    else:
        raise ConfigError(f"{path}: no such configuration file; name another with --config")


def _load_file(settings: Settings, path: Path) -> None:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    if tree is None:
        return
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: must be a mapping of sections, not {type(tree).__name__}")
    settings.set("", tree, str(path))


def _spelled(section: str) -> str:
    """The section that is meant: no environment variable's name can have the dash that a plugin's may have."""
    names = (point.name for point in entry_points(group="ciliate.plugins") if "_" in section)
    return next((name for name in names if name.replace("-", "_") == section), section)


def _scalar(text: str, origin: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: {text!r} is not a YAML value: {error}") from error


def core_config(settings: Settings) -> CoreConfig:
    """The core's own sections. Unknown top-level sections are checked by the host, which knows the plugins."""
    plugins = settings.tree.get("plugins", [])
    if isinstance(plugins, str):
        plugins = plugins.replace(",", " ").split()
    if not isinstance(plugins, list) or not all(isinstance(p, str) for p in plugins):
        raise ConfigError(f"plugins ({settings.origin('plugins')}): must be a list of plugin names, not {plugins!r}")
    try:
        processes = msgspec.convert(settings.tree.get("processes", {}), dict[str, list[str]])
    except msgspec.ValidationError as error:
        origin = settings.origin("processes")
        raise ConfigError(f"processes ({origin}): must map processes to lists of plugins: {error}") from error
    store = settings.tree.get("store", {})
    if not isinstance(store, dict):
        raise ConfigError(f"store ({settings.origin('store')}): must be a section with keys, not {store!r}")
    options = {key: value for key, value in store.items() if key != "driver"}
    origins = {path: origin for path, origin in settings.origins.items() if path.startswith("store.")}
    sections: dict[str, Any] = {name: settings.section(name, struct) for name, struct in _CORE_SECTIONS.items()}
    return CoreConfig(
        plugins=plugins,
        processes=processes,
        store=StoreSection(driver=str(store.get("driver", "local")), options=options, origins=origins),
        **sections,
    )


CORE_SECTIONS = frozenset({*_CORE_SECTIONS, "plugins", "processes", "store"})
