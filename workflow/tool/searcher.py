"""Runs inside a sandbox: finds files, and text in them. What it is asked and answers is JSON.

    python3 -I -S -c PROGRAM REQUEST

Standard library only, nothing newer than Python 3.9. Names and content are bytes until they are answered: a file name
may hold a newline, or be no UTF-8.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Request = dict[str, Any]
    Row = list[Any]  # [path, line number or count, text, whether it matched]

HIDDEN = (b".git", b"node_modules", b"__pycache__", b".venv")
LINE_CHARS = 500
RECORD_BYTES = 4 * 1024 * 1024  # of what rg tells of one match
READ_BYTES = 16 * 1024 * 1024  # a larger file is not searched without rg
TYPES = {  # without rg
    "c": "c h", "cpp": "cc cpp cxx h hh hpp", "css": "css scss", "go": "go", "html": "htm html", "java": "java",
    "js": "cjs js jsx mjs", "json": "json", "md": "markdown md", "php": "php", "py": "py pyi", "ruby": "rb",
    "rust": "rs", "sh": "bash sh", "sql": "sql", "toml": "toml", "ts": "cts mts ts tsx", "txt": "txt",
    "xml": "xml", "yaml": "yaml yml",
}  # fmt: skip


class Refused(Exception):
    """`code` is one of missing, not_a_folder, not_a_file, bad_pattern, bad_type."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(text)
        self.answer = {"error": code, "text": text}


def find_files(request: Request) -> dict[str, Any]:
    """Files by name, newest first."""
    folder = os.fsencode(request["path"])
    if not os.path.isdir(folder):
        raise Refused("not_a_folder" if os.path.exists(folder) else "missing")
    wanted = glob_pattern(request["pattern"])
    skipped = [name for name in HIDDEN if name not in os.fsencode(request["pattern"]).split(b"/")]
    paths = newest_first(folder, [path for path in walk(folder, skipped) if wanted.match(path)])
    return {**page(([shown(path), None, "", True] for path in paths), request), "total": len(paths)}


def find_text(request: Request) -> dict[str, Any]:
    path = os.fsencode(request["path"])
    if not os.path.exists(path):
        raise Refused("missing")
    if not os.path.isdir(path) and not os.path.isfile(path):
        raise Refused("not_a_file", f"{request['path']} is a pipe, socket or device, not a file")
    folder, name = (path, b".") if os.path.isdir(path) else os.path.split(path)
    engine = Ripgrep if shutil.which("rg") else Plain
    search = engine(request, folder, name)
    mode = request["mode"]
    if mode == "content":
        answer = page(search.lines(), request)
    else:
        counts = search.counts()
        paths = sorted(counts) if mode == "count" else newest_first(folder, counts)
        rows = ([shown(path), counts[path], "", True] for path in paths)
        answer = {**page(rows, request), "total": sum(counts.values()) if mode == "count" else len(counts)}
    searched = None if answer["rows"] or request["offset"] else search.searched()
    return {**answer, "folder": shown(folder), "searched": searched, "engine": engine.name}


class Ripgrep:
    name = "rg"

    def __init__(self, request: Request, folder: bytes, name: bytes) -> None:
        self._request = request
        self._folder = folder
        self._name = b"./" if name == b"." else b"./" + name
        self._filters = [f"--{option}={request[option]}" for option in ("glob", "type") if request[option]]

    def lines(self) -> Iterator[Row]:
        context = [f"--{side}-context={self._request[side]}" for side in ("before", "after")]
        process = self._start("--json", "--sort=path", *context, *self._matching())
        assert process.stdout
        path = ""
        while record := process.stdout.readline(RECORD_BYTES):
            if not record.endswith(b"\n"):
                while not process.stdout.readline(RECORD_BYTES).endswith(b"\n"):
                    pass
                yield [path, None, "(a line too long to show)", True]
                continue
            event = json.loads(record)
            if event["type"] == "begin":
                path = shown(clean(content(event["data"]["path"])))
            elif event["type"] in ("match", "context"):
                yield from rows_of(path, event["data"], event["type"] == "match")
        self._check(process, process.communicate()[1])

    def counts(self) -> dict[bytes, int]:
        how = "--count" if self._request["mode"] == "count" else "--files-with-matches"
        process = self._start(how, "--null", "--with-filename", *self._matching())
        output, errors = process.communicate()
        self._check(process, errors)
        if how == "--count":
            return {clean(path): int(count) for path, count in re.findall(rb"([^\0]+)\0(\d+)\n", output)}
        return {clean(path): 1 for path in output.split(b"\0") if path}

    def searched(self) -> int:
        return self._start("--files", "--null").communicate()[0].count(b"\0")

    def _matching(self) -> list[str]:
        flags = ["--multiline", "--multiline-dotall"] if self._request["multiline"] else []
        flags += ["--ignore-case"] if self._request["case_insensitive"] else []
        return [*flags, f"--regexp={self._request['pattern']}"]

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        common = ["--no-config", "--no-messages", "--hidden", "--no-require-git", "--color=never"]
        command: list[str | bytes] = ["rg", *common, *options, *self._filters, "--glob=!.git", "--", self._name]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)

    def _check(self, process: subprocess.Popen[bytes], errors: bytes) -> None:
        """What it says beside its results is about its arguments: what it cannot read, it passes over."""
        text = errors.decode("utf-8", "replace").strip()
        if process.returncode == 2 and text:
            raise Refused("bad_type" if "unrecognized file type" in text else "bad_pattern", text[:2000])


def content(field: dict[str, str]) -> bytes:
    return field["text"].encode() if "text" in field else base64.b64decode(field["bytes"])


def rows_of(path: str, match: dict[str, Any], matched: bool) -> Iterator[Row]:
    """A row for each line of what rg tells at once."""
    text = content(match["lines"])
    at = match["submatches"][0]["start"] if match["submatches"] else 0
    start = len(text[:at].decode("utf-8", "replace"))
    for place, line in enumerate(text.decode("utf-8", "replace").removesuffix("\n").split("\n")):
        yield [path, match["line_number"] + place, around(line, 0 if place else start), matched]


class Plain:
    """Where there is no rg."""

    name = "python"

    def __init__(self, request: Request, folder: bytes, name: bytes) -> None:
        flags = re.IGNORECASE if request["case_insensitive"] else 0
        flags |= re.DOTALL | re.MULTILINE if request["multiline"] else 0
        try:
            self._wanted = re.compile(request["pattern"], flags)
        except re.error as error:
            raise Refused("bad_pattern", f"regex error: {error}") from error
        self._request = request
        self._folder = folder
        self._glob = glob_pattern(request["glob"]) if request["glob"] else None
        self._endings = endings_of(request["type"])
        self._paths = [name] if name != b"." else sorted(filter(self._is_wanted, walk(folder, HIDDEN)))

    def lines(self) -> Iterator[Row]:
        for path in self._paths:
            text = self._text(path)
            if text is not None:
                yield from self._lines_of(shown(path), text)

    def counts(self) -> dict[bytes, int]:
        found = {path: len(self._matching(text)) for path in self._paths if (text := self._text(path)) is not None}
        return {path: count for path, count in found.items() if count}

    def searched(self) -> int:
        return len(self._paths)

    def _lines_of(self, path: str, text: str) -> Iterator[Row]:
        lines = text.removesuffix("\n").split("\n")
        matching = self._matching(text)
        before, after = self._request["before"], self._request["after"]
        near = {n for line in matching for n in range(max(0, line - before), min(len(lines), line + after + 1))}
        for number in sorted(near):
            yield [path, number + 1, around(lines[number], matching.get(number, 0)), number in matching]

    def _matching(self, text: str) -> dict[int, int]:
        """The numbers, from 0, of the lines that match, and where in the line they do so first."""
        if not self._request["multiline"]:
            lines = enumerate(text.removesuffix("\n").split("\n"))
            found = ((number, self._wanted.search(line.removesuffix("\r"))) for number, line in lines)
            return {number: match.start() for number, match in found if match}
        places: dict[int, int] = {}
        for match in self._wanted.finditer(text):
            first = text.count("\n", 0, match.start())
            places.setdefault(first, match.start() - text.rfind("\n", 0, match.start()) - 1)
            for number in range(first + 1, first + 1 + match.group().removesuffix("\n").count("\n")):
                places.setdefault(number, 0)
        return places

    def _text(self, path: bytes) -> str | None:
        """None: it is no text, too large, or cannot be read."""
        try:
            with open(os.path.join(self._folder, path), "rb") as file:
                if os.fstat(file.fileno()).st_size > READ_BYTES:
                    return None
                text = file.read()
        except OSError:
            return None
        return None if b"\0" in text[:8192] or not text else text.decode("utf-8", "replace")

    def _is_wanted(self, path: bytes) -> bool:
        by_name = self._glob is None or self._glob.match(path)
        return bool(by_name) and (not self._endings or path.rpartition(b".")[2] in self._endings)


def endings_of(kind: str | None) -> list[bytes]:
    if kind and kind not in TYPES:
        raise Refused("bad_type", f"unrecognized file type: {kind}. Without rg there are: {', '.join(TYPES)}")
    return os.fsencode(TYPES[kind]).split() if kind else []


def walk(folder: bytes, skipped: Iterable[bytes]) -> Iterator[bytes]:
    """The regular files below it, as paths relative to it."""
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in skipped]
        for name in names:
            path = os.path.join(base, name)
            if os.path.isfile(path):
                yield os.path.relpath(path, folder)


def newest_first(folder: bytes, paths: Iterable[bytes]) -> list[bytes]:
    def age(path: bytes) -> tuple[int, bytes]:
        try:
            return -os.stat(os.path.join(folder, path)).st_mtime_ns, path
        except OSError:  # removed since
            return 0, path

    return sorted(paths, key=age)


def glob_pattern(glob: str) -> re.Pattern[bytes]:
    """As rg and .gitignore have it: without a slash it is about a name at any depth. `!` in front: all but that."""
    if glob.startswith("!"):
        return re.compile(rb"(?!" + glob_pattern(glob[1:]).pattern + rb")", re.DOTALL)
    path = glob.lstrip("/") if "/" in glob else f"**/{glob}"
    return re.compile(translated(path).encode("utf-8", "surrogateescape") + rb"\Z", re.DOTALL)


def translated(glob: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^]/]*\]|\{[^{}]*\})", glob)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(known.get(part) or one_of(part) for part in parts)


def one_of(part: str) -> str:
    if len(part) > 2 and part[0] == "[" and part[-1] == "]":
        negated = part[1] == "!"
        inner = part[1 + negated : -1].replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
        return f"[{'^' if negated else ''}{inner}]"
    if len(part) > 2 and part[0] == "{" and part[-1] == "}":
        return "(?:" + "|".join(translated(choice) for choice in part[1:-1].split(",")) + ")"
    return re.escape(part)


def page(rows: Iterable[Row], request: Request) -> dict[str, Any]:
    """`limit` rows from `offset` on, less where they are long; `more` where there are further ones."""
    taken: list[Row] = []
    room = request["chars"]
    for number, row in enumerate(rows):
        if number < request["offset"]:
            continue
        room -= len(json.dumps(row, ensure_ascii=False)) + 1
        if len(taken) == request["limit"] or (room < 0 and taken):
            return {"rows": taken, "more": True}
        taken.append(row)
    return {"rows": taken, "more": False}


def around(line: str, start: int) -> str:
    """The line, or what is around its match if it is long."""
    text = line.removesuffix("\r")
    if len(text) <= LINE_CHARS:
        return text
    first = max(0, min(start - LINE_CHARS // 4, len(text) - LINE_CHARS))
    end = first + LINE_CHARS
    return f"{'…' if first else ''}{text[first:end]}{'…' if end < len(text) else ''}"


def clean(path: bytes) -> bytes:
    return path[2:] if path.startswith(b"./") else path


def shown(path: bytes) -> str:
    return path.decode("utf-8", "replace")


def main() -> None:
    request = json.loads(sys.argv[1])
    try:
        answer = find_text(request) if request["op"] == "grep" else find_files(request)
    except Refused as refused:
        answer = refused.answer
    sys.stdout.buffer.write(json.dumps(answer, ensure_ascii=False).encode())


if __name__ == "__main__":
    main()
