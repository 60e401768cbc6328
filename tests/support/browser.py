"""A real Chromium, for what only a browser can show."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, async_playwright, expect

BOUND_MS = 30_000
FLAGS = [
    "--no-sandbox",  # tests may run as root, and load only what they serve
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@asynccontextmanager
async def open_browser() -> AsyncIterator[Page]:
    """A tab of a fresh profile. Where there is no Chromium, the test is skipped."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no Chromium here: apt install chromium")
    expect.set_options(timeout=BOUND_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield await browser.new_page()
        finally:
            await browser.close()
