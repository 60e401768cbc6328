"""What a server sent, as text: HTML becomes Markdown, other text stays as it is, the rest is refused."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from workflow.tool.content import binary_kind

CONVERTER = Path(__file__).with_name("convert.py")
CONVERT_SECONDS = 15
SNIFFED_BYTES = 2_048
HTML = ("text/html", "application/xhtml+xml")
TEXT = re.compile(
    r"text/.+|application/(?:(?:.+\+)?(?:json|xml|yaml)|x-yaml|toml|javascript|ecmascript|x-javascript|x-ndjson|jsonl"
    r"|x-sh|sql|graphql|x-httpd-php|x-tex)|image/svg\+xml"
)
META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)


class Unreadable(Exception):
    """A body that is no text. The text says what it is."""


async def text_of(body: bytes, content_type: str, url: str) -> str:
    """`url` makes a page's links whole. Raises Unreadable."""
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower() or "text/plain"
    if not TEXT.fullmatch(kind) and kind not in HTML:
        raise Unreadable(f"it is {kind[:80]}, which is no text")
    if binary := binary_kind(body):
        raise Unreadable(f"it says that it is {kind}, but is a {binary}")
    text = body.decode(_charset(body, parameters), "replace")
    return await asyncio.to_thread(_markdown, text, url) if kind in HTML else text


def _charset(body: bytes, parameters: str) -> str:
    named = re.search(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", parameters, re.IGNORECASE)
    declared = META_CHARSET.search(body[:SNIFFED_BYTES])
    name = named[1] if named else declared[1].decode("ascii") if declared else "utf-8"
    try:
        b"\xff".decode(name, "replace")  # Python's codecs are more than text encodings, and some know no "replace"
    except (LookupError, ValueError):
        return "utf-8"
    return name


def _markdown(html: str, url: str) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(CONVERTER), url],
            input=html.encode("utf-8", "replace"),
            capture_output=True,
            timeout=CONVERT_SECONDS,
            check=True,
            env={},
        )
    except subprocess.SubprocessError as error:
        raise Unreadable("its HTML could not be converted to text") from error
    return done.stdout.decode("utf-8")
