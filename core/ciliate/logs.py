"""Structured logs on standard error, for people or as JSON."""

from __future__ import annotations

import logging
import sys

import structlog

from ciliate.config import ConfigError, LogSection


def configure_logs(section: LogSection) -> None:
    """Set level and format. Raises ConfigError on a name that is none."""
    level = logging.getLevelNamesMapping().get(section.level.upper())
    if level is None:
        raise ConfigError(f"log.level: {section.level!r} is no level; use debug, info, warning or error")
    if section.format not in ("console", "json"):
        raise ConfigError(f"log.format: {section.format!r} is no format; use console or json")
    renderer: structlog.typing.Processor
    if section.format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if section.format == "json":
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
