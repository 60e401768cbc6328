"""What ends up in the log, for people and for machines."""

import asyncio
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import pytest
from celery import Celery
from celery.signals import setup_logging
from celery.utils.log import get_task_logger
from hypothesis import given
from hypothesis import strategies as st

from shared.config import LogSettings
from shared.log import adopt_loggers, bound, configure_logging
from shared.secrets import mask_secrets

log = logging.getLogger("trunkline.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    loggers = [
        logging.root,
        *(item for item in logging.root.manager.loggerDict.values() if isinstance(item, logging.Logger)),
    ]
    before = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    yield
    logging.captureWarnings(False)
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate


def configured(
    format_: Literal["auto", "color", "json"] = "json", stream: io.StringIO | None = None, **settings: Any
) -> io.StringIO:
    stream = stream or io.StringIO()
    configure_logging(LogSettings(format=format_, **settings), "worker-1", stream)
    return stream


def entries(stream: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def only_entry(stream: io.StringIO) -> dict[str, str]:
    (entry,) = entries(stream)
    return entry


def test_machines_get_one_json_object_a_line() -> None:
    stream = configured()
    log.info("two\nlines, %s and \u2028", "an argument")
    entry = only_entry(stream)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "INFO",
        "service": "worker-1",
        "logger": "trunkline.test",
        "message": "two\nlines, an argument and \u2028",
    }


def test_people_get_a_coloured_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = configured("color")
    with bound(run_id="t.r"):
        log.error("it broke")
    text = stream.getvalue()
    assert "\033[31mERROR" in text
    assert "worker-1 trunkline.test: it broke" in text
    assert "run_id=t.r" in text


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = configured("color")
    log.info("plain")
    assert "\033" not in stream.getvalue()


@pytest.mark.parametrize(("stream", "for_people"), [(Terminal(), True), (io.StringIO(), False)])
def test_auto_is_colour_on_a_terminal_and_json_elsewhere(stream: io.StringIO, for_people: bool) -> None:
    configured("auto", stream)
    log.info("hello")
    assert stream.getvalue().startswith("{") != for_people


def test_an_exception_is_a_traceback_for_people_and_a_field_for_machines() -> None:
    texts = {}
    for format_ in ("color", "json"):
        stream = configured(format_)
        try:
            raise LookupError("lost")
        except LookupError:
            log.exception("failed")
        texts[format_] = stream.getvalue()
    assert 'Traceback (most recent call last):\n  File "' in texts["color"]
    entry = json.loads(texts["json"])
    assert entry["message"] == "failed"
    assert entry["exception"].endswith("LookupError: lost")


def test_what_is_bound_stands_in_every_line_inside_and_in_none_outside() -> None:
    stream = configured()
    with bound(thread_id="t"):
        with bound(run_id="t.r"):
            logging.getLogger("uvicorn.error").warning("inner")
        log.info("middle")
    log.info("outside")
    found = [(entry.get("thread_id"), entry.get("run_id")) for entry in entries(stream)]
    assert found == [("t", "t.r"), ("t", None), (None, None)]


async def test_tasks_side_by_side_do_not_see_each_other_s_fields() -> None:
    stream = configured()
    both_are_in = asyncio.Barrier(2)

    async def run(run_id: str) -> None:
        with bound(run_id=run_id):
            await both_are_in.wait()
            await asyncio.create_task(speak(run_id))

    async def speak(run_id: str) -> None:
        log.info(run_id)

    await asyncio.gather(run("a"), run("b"))
    assert sorted((entry["message"], entry["run_id"]) for entry in entries(stream)) == [("a", "a"), ("b", "b")]


async def test_a_generator_closed_by_another_task_can_unbind() -> None:
    async def stream() -> AsyncIterator[int]:
        with bound(request_id="q"):
            yield 1
            yield 2

    generator = stream()
    assert await asyncio.create_task(anext(generator)) == 1  # type: ignore[arg-type]
    await asyncio.create_task(generator.aclose())  # type: ignore[attr-defined]


def test_the_level_is_ours_and_other_libraries_speak_from_warning_up() -> None:
    stream = configured(level="INFO")
    for name in ("trunkline.a", "uvicorn.access", "celery.worker", "httpx", "celery.app.trace"):
        logging.getLogger(name).debug("debug")
        logging.getLogger(name).info("info")
        logging.getLogger(name).warning("warning")
    said = {(entry["logger"], entry["message"]) for entry in entries(stream)}
    ours = ("trunkline.a", "uvicorn.access", "celery.worker")
    assert said == {(name, word) for name in ours for word in ("info", "warning")} | {
        ("httpx", "warning"),
        ("celery.app.trace", "warning"),
    }


def test_a_higher_level_silences_libraries_too() -> None:
    stream = configured(level="ERROR")
    log.warning("no")
    logging.getLogger("httpx").warning("no")
    assert entries(stream) == []


def test_debug_lets_everybody_speak_whatever_the_level() -> None:
    stream = configured(level="ERROR", debug=True)
    log.debug("ours")
    logging.getLogger("httpx").debug("theirs")
    assert [entry["message"] for entry in entries(stream)] == ["ours", "theirs"]


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.access", "celery.task", "LiteLLM"])
def test_handlers_that_libraries_brought_are_taken_away(name: str) -> None:
    theirs, logger = io.StringIO(), logging.getLogger(name)
    logger.addHandler(logging.StreamHandler(theirs))
    logger.propagate = False
    stream = configured()
    logger.warning("once")
    assert theirs.getvalue() == ""
    assert only_entry(stream)["message"] == "once"


def test_handlers_of_a_library_imported_later_can_be_taken_away() -> None:
    stream, theirs = configured(), io.StringIO()
    logging.getLogger("latecomer").addHandler(logging.StreamHandler(theirs))
    adopt_loggers()
    logging.getLogger("latecomer").warning("once")
    assert (theirs.getvalue(), only_entry(stream)["message"]) == ("", "once")


def test_configuring_twice_does_not_log_twice() -> None:
    configured()
    stream = configured()
    log.info("once")
    assert len(entries(stream)) == 1


def test_celery_leaves_the_format_alone_when_its_signal_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGLEVEL", "LOGFILE", "LOGFORMAT"):
        monkeypatch.setenv(f"_MP_FORK_{name}_", "")  # Celery sets them; this puts them back
    stream = configured()

    def keep(**_: Any) -> None:
        """Celery sets up its own logging unless somebody listens."""

    setup_logging.connect(keep)
    try:
        app = Celery("test", set_as_current=False)
        app.log.already_setup = False
        app.log.setup_logging_subsystem(loglevel="ERROR")
    finally:
        setup_logging.disconnect(keep)
    get_task_logger("a.task").info("from a task")
    logging.getLogger("celery.worker.consumer").info("connected")
    assert [entry["message"] for entry in entries(stream)] == ["from a task", "connected"]


def test_uvicorn_s_access_lines_are_in_the_format_and_keep_no_ticket() -> None:
    stream = configured()
    access = logging.getLogger("uvicorn.access")
    access.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", "/stream?last_id=1&ticket=abc.def", "1.1", 200)
    assert only_entry(stream)["message"] == '127.0.0.1:1 - "GET /stream?last_id=1&ticket=**** HTTP/1.1" 200'


def test_warnings_are_logged() -> None:
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old way", DeprecationWarning, stacklevel=1)
    assert "old way" in only_entry(stream)["message"]


@pytest.mark.parametrize("format_", ["color", "json"])
def test_no_secret_reaches_the_log(format_: Literal["color", "json"]) -> None:
    stream = configured(format_)
    secret = "tl_0123456789abcdefABCDEF"
    with bound(request_id=secret):
        try:
            raise ValueError(f"refused {secret}")
        except ValueError:
            log.exception("key %s is wrong", secret, stack_info=True)
    assert secret not in stream.getvalue()
    assert stream.getvalue().count("tl_****") == 3


@given(st.text(max_size=200))
def test_any_text_can_be_logged_as_one_line(text: str) -> None:
    stream = configured()
    log.info("%s", text)
    assert only_entry(stream)["message"] == mask_secrets(text)


def test_logs_go_to_stderr() -> None:
    code = (
        "import logging; from shared.config import LogSettings; from shared.log import configure_logging\n"
        "configure_logging(LogSettings(), 'gateway'); logging.getLogger('trunkline').info('\\udcff up')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert json.loads(done.stderr)["message"] == "\udcff up"
