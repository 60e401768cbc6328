"""What a person sees of the stack: every service's lines in one view, and a file for each of them.

A terminal that is stopped (Ctrl-S) or a pipe that nobody reads must not stop the services, so printing has a thread of
its own, and what it cannot keep up with is left to the files.
"""

import json
import logging
import queue
import re
import sys
import threading
from datetime import datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from shared.secrets import mask_secrets

LOG_BYTES = 10 * 1024 * 1024
LOG_FILES = 3
WAITING_LINES = 5000

COLOURS = ("36", "35", "34", "32", "33", "95", "94", "96")  # by the order in which the services appear
LEVEL_COLOURS = {"WARNING": "33", "ERROR": "31", "CRITICAL": "1;31", "DEBUG": "2"}
SHOWN_FIELDS = {"time", "level", "service", "logger", "message", "exception", "stack"}
# Of Valkey's lines only warnings ("#") are for a person, without those of every start and stop.
VALKEY_LINE = re.compile(r"^\d+:(?:signal-handler \(|[XCSM] .*? (?P<mark>[.\-*#]) (?P<text>.*)$)")
VALKEY_ROUTINE = ("WARNING Memory overcommit", "WARNING You have Transparent Huge", "Valkey is now ready to exit")
ROUTINE_LOGGERS = ("uvicorn.error",)  # tells of every start and stop in four lines; its warnings are shown
NAME_WIDTH = 12


class View:
    """Takes lines from the services and from the supervisor. `close` it to have the last ones printed."""

    def __init__(self, logs: Path, out: TextIO = sys.stdout) -> None:
        self._logs = logs
        self._out = out
        self._colour = out.isatty()
        self._files: dict[str, RotatingFileHandler] = {}
        self._waiting: queue.Queue[str | None] = queue.Queue(WAITING_LINES)
        self._thread = threading.Thread(target=self._print, name="view", daemon=True)
        self._thread.start()

    def log(self, service: str, line: str) -> None:
        """One line as the service wrote it. JSON comes from its log, which masks secrets itself."""
        line = line if line.startswith("{") else mask_secrets(line)
        if service not in self._files:
            self._files[service] = RotatingFileHandler(
                self._logs / f"{service}.log", maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8"
            )
        self._files[service].emit(logging.makeLogRecord({"msg": line}))
        shown = self._for_people(line)
        if shown:
            self._put(f"{self._name(service)} {shown}")

    def say(self, text: str) -> None:
        """The supervisor's own words. They may quote a service's."""
        self._put(mask_secrets(text))

    def show(self, text: str) -> None:
        """As it is: for the banner, whose link has a ticket."""
        self._put(text)

    def bold(self, text: str) -> str:
        return self._painted(text, "1")

    def dim(self, text: str) -> str:
        return self._painted(text, "2")

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join(timeout=2)
        for file in self._files.values():
            file.close()

    def _put(self, text: str) -> None:
        try:
            self._waiting.put_nowait(text)
        except queue.Full:
            return  # it stands in the file

    def _print(self) -> None:
        while (text := self._waiting.get()) is not None:
            try:
                print(text, file=self._out, flush=True)
            except (BrokenPipeError, ValueError):
                return

    def _name(self, service: str) -> str:
        return self._painted(f"{service:<{NAME_WIDTH}}", COLOURS[list(self._files).index(service) % len(COLOURS)])

    def _painted(self, text: str, colour: str | None) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour and colour else text

    def _for_people(self, line: str) -> str | None:
        """None: not worth a line on the screen."""
        if line.startswith("{"):
            try:
                return self._entry(json.loads(line))
            except (ValueError, KeyError):
                return line
        valkey = VALKEY_LINE.match(line)
        if valkey is None:
            return line
        routine = valkey["mark"] != "#" or valkey["text"].startswith(VALKEY_ROUTINE)
        return None if routine else valkey["text"]

    def _entry(self, entry: dict[str, str]) -> str | None:
        if entry["level"] == "INFO" and entry["logger"].startswith(ROUTINE_LOGGERS):
            return None
        clock = self.dim(datetime.fromisoformat(entry["time"]).astimezone().strftime("%H:%M:%S"))
        level = self._painted(f"{entry['level']:<8}", LEVEL_COLOURS.get(entry["level"]))
        bound = "".join(f" {name}={value}" for name, value in entry.items() if name not in SHOWN_FIELDS)
        trace = "".join(f"\n{entry[name]}" for name in ("exception", "stack") if name in entry)
        return f"{clock} {level} {entry['message']}{self.dim(bound)}{trace}"
