"""An agent makes a web app from a template, and a browser opens it: the same script on each kind of sandbox."""

import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Page, expect
from redis.asyncio import Redis

from shared import keys
from tests.e2e.web_apps import PORT, Script, service, static_site, task_of
from tests.support.browser import open_browser
from tests.support.daytona_double import DaytonaDouble
from tests.support.e2b_double import E2BDouble
from tests.support.eventsource import Received, follow
from tests.support.stack import ROOT, Stack

pytestmark = pytest.mark.slow

KINDS = ["local", "e2b", "daytona"]
INSTALL_SECONDS = 120


@asynccontextmanager
async def stack_on(kind: str, packages: Path | None = None) -> AsyncIterator[Stack]:
    """A stack whose sandboxes are of that kind. `packages`: what templates need, in each sandbox."""
    match kind:
        case "local":
            async with Stack(env={"TRUNKLINE__TEMPLATES__PACKAGES": str(packages)} if packages else {}) as stack:
                yield stack
        case "e2b":
            async with E2BDouble(packages=packages) as e2b, Stack(env=settings_of("e2b", e2b)) as stack:
                yield stack
        case "daytona":
            async with DaytonaDouble(packages=packages) as daytona, Stack(env=settings_of("daytona", daytona)) as stack:
                yield stack


def settings_of(provider: str, double: E2BDouble | DaytonaDouble) -> dict[str, str]:
    section = f"TRUNKLINE__{provider.upper()}__"
    settings = {
        "TRUNKLINE__SANDBOX__PROVIDER": provider,
        f"{section}API_KEY": double.key,
        f"{section}API_URL": double.api_url,
    }
    if provider == "e2b":
        settings[f"{section}SANDBOX_URL"] = double.api_url
    return settings


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """A tab of a browser, which is still open when the stack ends."""
    async with open_browser() as tab:
        yield tab


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with those of `fastapi-service`."""
    folder = tmp_path_factory.mktemp("templates") / "packages"  # made so that the sandboxes' user may read it
    command = [sys.executable, "-m", "workflow.template.install", "fastapi-service"]
    env = {**os.environ, "TRUNKLINE__TEMPLATES__PACKAGES": str(folder), "PIP_RETRIES": "0"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"no package registry gives the template's packages within {INSTALL_SECONDS} s")
    if done.returncode:
        pytest.skip(f"no package registry within reach: {done.stdout[-500:]}")
    return folder


async def work(stack: Stack, thread_id: str, script: Script) -> list[Received]:
    """Every event of the run that did it."""
    run_id = await stack.execute(thread_id, task_of(script))
    events = await follow(stack.client, f"/api/agent/{thread_id}/stream?run_id={run_id}", run_id)
    assert events[-1].type == "run.completed", events[-1]
    return events


def data_of(events: list[Received], kind: str) -> list[dict[str, Any]]:
    return [event.data["data"] for event in events if event.type == kind]


async def built(stack: Stack, script: Script) -> str:
    """The link to the app, once the agent has made it; of each of its steps it is seen that it did what it should."""
    events = await work(stack, await stack.thread(), script)
    answers = data_of(events, "tool.response")
    assert [answer["name"] for answer in answers] == [name for name, _ in script]
    failed = [(answer["name"], answer["error_code"], answer["content"]) for answer in answers if not answer["ok"]]
    assert [failure[:2] for failure in failed] == [("expose_port", "not_listening")], failed
    by_name = {answer["name"]: answer for answer in answers}
    assert len(by_name["grep"]["data"]["files"]) > 0
    assert by_name["bash_output"]["data"]["exit_code"] == 0, by_name["bash_output"]["content"]
    assert len(data_of(events, "plan")) == len(data_of(events, "template")) == 1
    assert [file["action"] for file in data_of(events, "file")] == ["edited"] * 3
    [link] = data_of(events, "url")
    assert (link["port"], link["label"], link["http_status"]) == (PORT, "the app", 200)
    assert urlsplit(link["url"]).path == script[-1][1]["path"]
    return str(link["url"])


@pytest.mark.parametrize("kind", KINDS)
async def test_an_agent_makes_a_site_and_a_browser_uses_it(kind: str, page: Page, tmp_path: Path) -> None:
    async with stack_on(kind) as stack:
        await page.goto(await built(stack, static_site()))
        await page.get_by_role("button", name="Count").click(click_count=2)
        await expect(page.locator("output")).to_have_text("2")
        await expect(page.locator("body")).to_have_css("color", "rgb(0, 90, 60)")
        await page.screenshot(path=tmp_path / "site.png")
        await page.get_by_role("link", name="About").click()
        await expect(page.get_by_text("It counts your clicks.")).to_be_visible()
        assert urlsplit(page.url).path == "/about.html"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_agent_makes_a_service_with_tests_and_a_browser_uses_it(
    kind: str, page: Page, packages: Path, tmp_path: Path
) -> None:
    async with stack_on(kind, packages) as stack:
        await page.goto(await built(stack, service()))
        for text in ("Buy milk", "<b>Grüße</b>"):
            await page.get_by_label("Note").fill(text)
            await page.get_by_role("button", name="Add").click()
        await expect(page.locator("li")).to_have_text(["1: Buy milk", "2: <b>Grüße</b>"])
        await page.screenshot(path=tmp_path / "service.png")


async def test_a_browser_sees_plain_words_when_the_server_has_ended_and_when_the_link_has(page: Page) -> None:
    serve = ("bash", {"command": f"python3 -m http.server {PORT}", "run_in_background": True})
    async with stack_on("local") as stack:
        thread_id = await stack.thread()
        events = await work(stack, thread_id, [serve, ("expose_port", {"port": PORT})])
        [link] = data_of(events, "url")
        await page.goto(link["url"])
        await expect(page.get_by_role("heading")).to_have_text("Directory listing for /")

        await work(stack, thread_id, [("bash_kill", {"task_id": "bg_1"})])
        answer = await page.reload()
        assert answer
        assert answer.status == 502
        await expect(page.locator("body")).to_contain_text(f"Nothing in the sandbox listens on port {PORT}.")

        await end_link(stack, link["url"])
        answer = await page.goto(link["url"])
        assert answer
        assert (answer.status, answer.headers["content-type"]) == (403, "text/plain; charset=utf-8")
        await expect(page.locator("body")).to_contain_text("This link is not valid, or not any more.")


async def end_link(stack: Stack, url: str) -> None:
    """As its time does it, an hour later."""
    [ticket] = parse_qs(urlsplit(url).query)["ticket"]
    async with Redis.from_url(stack.redis_url()) as client:
        assert await client.expire(keys.port_link(hashlib.sha256(ticket.encode()).hexdigest()), 0)
