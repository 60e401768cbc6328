"""One log format for everything in a process: colour for people, one line of JSON for machines.

Loggers are named `trunkline.<component>`. What `bound` binds stands in every line logged inside it, also by libraries.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TextIO

from colorlog import ColoredFormatter

from shared.config import LogSettings
from shared.secrets import mask_secrets

PEOPLE_FORMAT = (
    "%(thin)s%(asctime)s.%(msecs)03d%(reset)s %(log_color)s%(levelname)-8s%(reset)s "
    "%(service)s %(name)s: %(message)s%(thin)s%(bound_text)s%(reset)s"
)
OUR_LOGGERS = ("trunkline", "uvicorn", "celery")
# They tell of every message twice, which the runs' own lines say better.
PER_MESSAGE_LOGGERS = ("celery.app.trace", "celery.worker.strategy")

_bound: ContextVar[Mapping[str, str]] = ContextVar("bound", default=MappingProxyType({}))


def configure_logging(settings: LogSettings, service: str, stream: TextIO | None = None) -> None:
    """Sends all logging of this process to `stream` (stderr). A program calls it once, at its start.

    `settings.level` is for our loggers, uvicorn's and Celery's; other libraries speak from WARNING up, unless `debug`.
    """
    stream = stream or sys.stderr
    people = settings.format == "color" or (settings.format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_PeopleFormatter(service) if people else _JsonFormatter(service))
    logging.root.handlers[:] = [handler]
    logging.captureWarnings(True)
    adopt_loggers()
    _set_levels(settings)


def adopt_loggers() -> None:
    """Takes away the handlers that libraries gave their loggers; for after importing one that does (LiteLLM)."""
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Adds fields (run_id, thread_id, request_id) to every line logged inside, by this task and those it starts."""
    outer = _bound.get()
    _bound.set({**outer, **fields})
    try:
        yield
    finally:
        # Not `reset`: it raises where an async generator is closed in another context than it began in.
        _bound.set(outer)


def bound_value(name: str) -> str | None:
    """Of a field that is bound here."""
    return _bound.get().get(name)


def _set_levels(settings: LogSettings) -> None:
    level = logging.DEBUG if settings.debug else logging.getLevelNamesMapping()[settings.level]
    libraries = logging.DEBUG if settings.debug else max(level, logging.WARNING)
    logging.root.setLevel(libraries)
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(level)
    for name in PER_MESSAGE_LOGGERS:
        logging.getLogger(name).setLevel(libraries)


class _PeopleFormatter(ColoredFormatter):
    def __init__(self, service: str) -> None:
        super().__init__(PEOPLE_FORMAT, datefmt="%H:%M:%S", defaults={"service": service})

    def format(self, record: logging.LogRecord) -> str:
        record.bound_text = "".join(f" {name}={value}" for name, value in _bound.get().items())
        return mask_secrets(super().format(record))


class _JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **_bound.get(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = record.stack_info
        return json.dumps({name: mask_secrets(value) for name, value in entry.items()})
