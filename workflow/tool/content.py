"""A text file's content, told apart from its byte order mark, so that an edit gives back every other byte."""

import hashlib
from dataclasses import dataclass, replace
from typing import Self

BOM = "\ufeff"
SNIFFED_BYTES = 8_192
SIGNATURES = (
    (b"\x89PNG\r\n", "PNG image"),
    (b"\xff\xd8\xff", "JPEG image"),
    (b"GIF8", "GIF image"),
    (b"RIFF", "RIFF media file"),
    (b"%PDF-", "PDF document"),
    (b"PK\x03\x04", "ZIP archive (also .docx, .xlsx, .jar, .whl)"),
    (b"\x1f\x8b", "gzip archive"),
    (b"BZh", "bzip2 archive"),
    (b"\xfd7zXZ\x00", "xz archive"),
    (b"\x28\xb5\x2f\xfd", "zstd archive"),
    (b"\x7fELF", "ELF program"),
    (b"SQLite format 3\x00", "SQLite database"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)


def binary_kind(content: bytes) -> str | None:
    """What a file is that is not text of one byte a unit; None for text (of whatever 8-bit encoding)."""
    has_nul = b"\x00" in content[:SNIFFED_BYTES]
    for signature, kind in SIGNATURES:
        if content.startswith(signature) and (has_nul or not signature.isalnum()):  # a text may well begin with BZh
            return kind
    return "binary file" if has_nul else None


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Text:
    """`text` has no BOM. Bytes that are not UTF-8 stand in it as lone surrogates, and come back as they were."""

    text: str
    bom: bool

    @classmethod
    def decode(cls, content: bytes) -> Self:
        text = content.decode("utf-8", "surrogateescape")
        return cls(text.removeprefix(BOM), text.startswith(BOM))

    def encode(self) -> bytes:
        return ((BOM if self.bom else "") + self.text).encode("utf-8", "surrogateescape")

    def with_text(self, text: str) -> Self:
        return replace(self, text=text)


def lines_of(text: str) -> list[str]:
    """Its lines without their endings. Only LF and CRLF end a line; a final ending starts no line of its own."""
    if not text:
        return []
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def readable(text: str) -> str:
    """As it can be sent and shown: what stands for a byte that is not UTF-8 becomes U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
