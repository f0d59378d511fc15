"""The routes of the core itself: what this process is, what it has, and how it fares."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from ciliate import __version__
from ciliate.api.routes import ApiError, Request, Route
from ciliate.loading import available

if TYPE_CHECKING:
    from ciliate.host import Host


def core_routes(host: Host) -> list[Route]:
    """Routes over a running host."""
    views = CoreViews(host)
    return [
        Route("GET", "/status", views.status, "Whether this process is ready, and why not."),
        Route("GET", "/plugins", views.plugins, "Plugins, their tasks, tables and hook times."),
        Route("GET", "/tables/{name}", views.table, "All rows of a table."),
        Route("GET", "/maps", views.maps, "BPF maps and their owners."),
        Route("GET", "/config", views.config, "Every set value and where it came from."),
        Route("GET", "/metrics", views.metrics, "Prometheus text."),
        Route("GET", "/loop", views.loop, "How the loop fares, and what waits in queues."),
        Route("GET", "/routes", views.routes, "All routes."),
    ]


class CoreViews:
    """Answers about one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def status(self, _: Request) -> dict[str, Any]:
        """Readiness, with the reasons by plugin; `degraded`: of those without which the node is ready all the same."""
        host = self._host
        reasons = host.ready()
        return {
            "ready": not reasons,
            "reasons": reasons,
            "degraded": host.degraded(),
            "refused": host.loaded.refused,
            "node": host.place.name,
            "cluster": host.place.cluster,
            "process": host.place.process,
            "role": host.place.role,
            "version": __version__,
            "started": host.started,
            "events": host.batches.records,
            "events_lost": host.batches.lost(),
            **self._leader(),
        }

    def _leader(self) -> dict[str, Any]:
        leadership = self._host.leadership
        return {} if leadership is None else {"leading": leadership.leading, "leader": leadership.holder}

    async def plugins(self, _: Request) -> list[dict[str, Any]]:
        """Every available plugin and what is known of it."""
        host = self._host
        rows = []
        for name in sorted({*available(), *host.loaded.refused}):
            plugin = host.loaded.plugins.get(name)
            state = "enabled" if plugin is not None else "refused" if name in host.loaded.refused else "available"
            rows.append(
                {
                    "name": name,
                    "state": state,
                    "reason": host.loaded.refused.get(name, ""),
                    "description": plugin.description if plugin is not None else "",
                    "hooks": sorted(h for h in dir(plugin) if h.startswith("ciliate_")) if plugin is not None else [],
                    "hook_seconds": host.hook_seconds.get(name, {}),
                    "held": asdict(host.watch.held[name]) if name in host.watch.held else None,
                    "tables": [table.spec.name for table, writer in host.tables.all() if writer == name],
                    "maps": [spec.name for spec in host.maps.specs().values() if host.maps.owner(spec.name) == name],
                    "tasks": [
                        {"name": t.name, "state": t.state, "failures": t.failures, "error": t.last_error}
                        for t in host.supervisor.tasks
                        if t.plugin == name
                    ],
                }
            )
        return rows

    async def table(self, request: Request) -> dict[str, Any]:
        """A table's rows, with its epoch, revision and completeness."""
        name = request.params["name"]
        for table, writer in self._host.tables.all():
            if table.spec.name == name:
                return {
                    "name": name,
                    "writer": writer,
                    "epoch": table.epoch,
                    "revision": table.revision,
                    "complete": table.complete,
                    "stale": table.stale,
                    "rows": [msgspec.to_builtins(row) for row in table.rows.values()],
                }
        known = ", ".join(sorted(table.spec.name for table, _ in self._host.tables.all()))
        raise ApiError(404, f"no table {name}; there are {known}")

    async def loop(self, _: Request) -> dict[str, Any]:
        """Busy: a share of the time; held: turns over 10 ms; longest: in seconds; core: its function that held it."""
        host, watch = self._host, self._host.watch
        queues = [("events", topic, len(q)) for topic in host.events.topics() for q in host.events.queues(topic)]
        queues += [("batches", "events", len(queue)) for queue in host.batches.queues()]
        queues += [("table", t.spec.name, len(f.pending)) for t, _ in host.tables.all() for f in t.followers]
        return {
            "busy": watch.busy / (time.monotonic() - watch.since),
            "held": watch.times,
            "longest": watch.longest,
            "core": watch.held["core"].where if "core" in watch.held else "",
            "worker": host.worker.waiting,
            "queues": [{"kind": kind, "name": name, "length": length} for kind, name, length in queues],
        }

    async def maps(self, _: Request) -> list[dict[str, Any]]:
        """Declared maps."""
        registry = self._host.maps
        return [
            {
                "name": spec.name,
                "owner": registry.owner(spec.name),
                "type": spec.kind.name.lower(),
                "key_size": spec.key.itemsize,
                "value_size": spec.value.itemsize,
                "max_entries": spec.max_entries,
                "description": spec.doc,
            }
            for spec in registry.specs().values()
        ]

    async def config(self, _: Request) -> list[dict[str, Any]]:
        """Set values with their origins, then the defaults of the enabled plugins."""
        host = self._host
        rows = []
        for name, plugin in host.loaded.plugins.items():
            section = msgspec.to_builtins(host.settings.section(name, plugin.config))
            rows += [_value(host, f"{name}.{key}", value) for key, value in section.items()]
        for name, section in msgspec.to_builtins(host.config).items():
            if name == "store":
                section = {"driver": section["driver"], **section["options"]}
            if isinstance(section, dict):
                rows += [_value(host, f"{name}.{key}", value) for key, value in section.items()]
            else:
                rows.append(_value(host, name, section))
        return rows

    async def metrics(self, _: Request) -> str:
        """Prometheus text."""
        return self._host.metrics.exposition()

    async def routes(self, _: Request) -> list[dict[str, str]]:
        """Method, pattern and sentence of each route."""
        return [{"method": r.method, "pattern": r.pattern, "doc": r.doc} for r in self._host.api.routes]


def _value(host: Host, path: str, value: Any) -> dict[str, Any]:
    return {"key": path, "value": value, "origin": host.settings.origin(path)}
