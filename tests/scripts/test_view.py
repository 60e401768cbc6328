"""What a person sees of the services' logs."""

import io
import json
from pathlib import Path

from scripts.stack.banner import banner
from scripts.stack.view import View
from shared.config import LlmSettings, Settings

ENTRY = {"time": "2026-11-21T05:00:00.123+00:00", "level": "WARNING", "service": "gateway", "logger": "trunkline.x"}


def shown(folder: Path, *lines: tuple[str, str]) -> str:
    out = io.StringIO()
    view = View(folder, out)
    for service, line in lines:
        view.log(service, line)
    view.close()
    return out.getvalue()


def test_json_lines_become_readable_and_stay_json_in_the_file(tmp_path: Path) -> None:
    line = json.dumps({**ENTRY, "message": "too late", "run_id": "r", "exception": "Traceback ..."})
    text = shown(tmp_path, ("gateway", line))
    assert text.startswith("gateway      ")
    assert "WARNING  too late run_id=r\nTraceback ..." in text
    assert (tmp_path / "gateway.log").read_text() == line + "\n"


def test_other_lines_are_shown_as_they_are(tmp_path: Path) -> None:
    assert shown(tmp_path, ("worker-1", "Segmentation fault")) == "worker-1     Segmentation fault\n"
    assert shown(tmp_path, ("worker-1", '{"not": "ours"}')) == 'worker-1     {"not": "ours"}\n'


def test_of_valkeys_lines_only_what_a_person_must_know_is_shown(tmp_path: Path) -> None:
    prefix = "123:M 21 Nov 2026 05:00:00.123"
    lines = [
        f"{prefix} * Ready to accept connections tcp",
        f"{prefix} # WARNING Memory overcommit must be enabled!",
        f"{prefix} # Error writing to the AOF file: No space left on device",
        "123:signal-handler (1795239031) Received SIGTERM scheduling shutdown...",
    ]
    text = shown(tmp_path, *(("valkey", line) for line in lines))
    assert text == "valkey       Error writing to the AOF file: No space left on device\n"
    assert len((tmp_path / "valkey.log").read_text().splitlines()) == len(lines)


def test_secrets_are_masked_in_what_is_said_and_in_what_services_say_before_they_have_a_log(tmp_path: Path) -> None:
    out = io.StringIO()
    view = View(tmp_path, out)
    view.say("worker-1 exited 1: http://user:pass@host/v1 refused sk-ant-0123456789")
    view.log("worker-1", "no answer from http://user:pass@host/v1")
    view.close()
    assert out.getvalue() == (
        "worker-1 exited 1: http://****@host/v1 refused sk-****\nworker-1     no answer from http://****@host/v1\n"
    )
    assert (tmp_path / "worker-1.log").read_text() == "no answer from http://****@host/v1\n"


def test_the_banner_shows_its_link_whole_and_no_secret_of_the_models_address(tmp_path: Path) -> None:
    settings = Settings(llm=LlmSettings(base_url="http://user:pass@127.0.0.1:1/v1"))
    link = "http://127.0.0.1:8000/session?ticket=abcdefgh"
    view = View(tmp_path, out := io.StringIO())
    view.show(banner(view, settings, tmp_path, "http://127.0.0.1:8000", link))
    view.close()
    assert link in out.getvalue()
    assert "llm.base_url is set to http://****@127.0.0.1:1/v1" in out.getvalue()
