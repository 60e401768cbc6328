"""Searching, against a real sandbox; and by the program itself where there is no rg."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.tool.support import Caller
from tests.workflow.tool.test_files import put
from workflow.tool import searcher
from workflow.tool.base import CallLimits

NEWLINE = "sub/new\nline.txt"


async def some_files(call: Caller) -> None:
    await put(call, "a.py", b"import os\n\ndef first():\n    return os\n")
    await put(call, "src/b.py", "käse = 1\r\nos = 2\r\n".encode())
    await put(call, NEWLINE, b"os in odd file\n")
    await put(call, ".git/config", b"os\n")
    await put(call, "left/out.py", b"os\n")
    await put(call, ".gitignore", b"left\n")
    await call("bash", command="touch -d '2020-01-01' a.py; touch -d '2021-01-01' src/b.py; touch -d 2019-01-01 sub/*")


class TestGrep:
    async def test_files_come_newest_first(self, call: Caller) -> None:
        await some_files(call)
        result = await call("grep", pattern=r"\bos\b")
        assert result.content == 'src/b.py\na.py\n"sub/new\\nline.txt"\n(3 files)'
        assert result.data["files"] == ["src/b.py", "a.py", '"sub/new\\nline.txt"']
        assert result.data["total"] == 3

    async def test_content_has_numbers_and_context(self, call: Caller) -> None:
        await some_files(call)
        shown = await call("grep", pattern="os", output_mode="content", glob="*.py", context=1)
        assert shown.content == (
            "a.py:1:import os\na.py-2-\na.py-3-def first():\na.py:4:    return os\n--\n"
            "src/b.py-1-käse = 1\nsrc/b.py:2:os = 2"
        )
        after = await call("grep", pattern="import", output_mode="content", context=3, before=0, after=1)
        assert after.content == "a.py:1:import os\na.py-2-"

    async def test_count_is_of_lines(self, call: Caller) -> None:
        await some_files(call)
        result = await call("grep", pattern="OS", output_mode="count", type="py", case_insensitive=True)
        assert result.content == "a.py: 2\nsrc/b.py: 1\n(3 lines in 2 files)"

    async def test_a_match_may_go_over_lines(self, call: Caller) -> None:
        await some_files(call)
        pattern = r"def.*return"
        assert (await call("grep", pattern=pattern)).content.startswith("No matches")
        both = await call("grep", pattern=pattern, multiline=True, output_mode="content")
        assert both.content == "a.py:3:def first():\na.py:4:    return os"

    async def test_no_matches_says_how_much_was_searched(self, call: Caller) -> None:
        await some_files(call)
        nothing = await call("grep", pattern="absent")
        assert nothing.ok
        assert nothing.content == "No matches for 'absent' in /workspace (4 files searched; .gitignore respected)."
        none = await call("grep", pattern="os", glob="*.rs")
        assert "(0 files searched; .gitignore respected)" in none.content

    async def test_what_is_named_is_searched_though_ignored(self, call: Caller) -> None:
        await some_files(call)
        assert (
            await call("grep", pattern="os", path="left/out.py", output_mode="content")
        ).content == "left/out.py:1:os"

    async def test_a_bad_pattern_is_explained(self, call: Caller) -> None:
        result = await call("grep", pattern="interface{}")
        assert (result.ok, result.error_code) == (False, "bad_pattern")
        assert "interface{}" in result.content
        assert "put a backslash before" in result.content
        unknown = await call("grep", pattern="a", type="klingon")
        assert unknown.error_code == "bad_type"
        assert "klingon" in unknown.content

    async def test_pages_follow_each_other(self, call: Caller) -> None:
        await put(call, "n", "".join(f"line {n}\n" for n in range(1, 1_001)).encode())
        first = await call("grep", pattern="line", output_mode="content", head_limit=2)
        assert first.content == "n:1:line 1\nn:2:line 2\n(Showing 1-2. Use offset=2 to continue.)"
        last = await call("grep", pattern="line", output_mode="content", head_limit=2, offset=998)
        assert last.content == "n:999:line 999\nn:1000:line 1000\n(Showing 999-1,000.)"
        beyond = await call("grep", pattern="line", output_mode="content", offset=1_000)
        assert beyond.content == "No more matches: there are fewer than 1001."

    async def test_long_results_and_lines_are_bounded(self, call: Caller) -> None:
        call.limits = CallLimits(output_chars=5_000)
        await put(call, "min.js", (b"x" * 50_000 + b"needle" + b"y" * 50_000 + b"\n") * 50)
        result = await call("grep", pattern="needle", output_mode="content")
        assert len(result.content) < 5_000
        assert all("needle" in line and line.endswith("y…") for line in result.content.split("\n")[:-1])
        assert "Use offset=7 to continue" in result.content

    async def test_neither_patterns_nor_names_are_shell_text(self, call: Caller) -> None:
        await put(call, "$(touch hacked) '\"; -v", b"'; touch hacked; $(touch hacked) -e --\n")
        for pattern in ("'; touch hacked; $(touch", "-e --", "--", "-v"):
            found = await call("grep", pattern=pattern.replace("$(", r"\$\("), output_mode="content")
            assert "-v:1:'; touch" in found.content or pattern == "-v", found.content
        assert (await call("glob", pattern="*hacked*")).data["total"] == 1

    async def test_it_leaves_bash_where_it_was(self, call: Caller) -> None:
        await put(call, "sub/a", b"x\n")
        await call("bash", command="cd sub")
        await call("grep", pattern="x")
        await call("glob", pattern="*")
        assert (await call("bash", command="pwd")).content.startswith("/workspace/sub\n")

    async def test_a_search_that_takes_too_long_is_ended(self, call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("workflow.tool.search.SEARCH_SECONDS", 0.001)
        result = await call("grep", pattern="x")
        assert result.error_code == "timeout"
        assert "Search a smaller folder" in result.content
        assert await call.box.tasks() == []

    async def test_what_is_not_there_is_answered_with_near_names(self, call: Caller) -> None:
        await put(call, "source/a", b"")
        await call("bash", command="mkfifo pipe")
        assert (await call("grep", pattern="a", path="pipe")).error_code == "not_a_file"
        assert (await call("grep", pattern="a", path="sourse")).content.endswith("Did you mean /workspace/source/?")

    async def test_after_a_crash_it_is_done_again(self, call: Caller) -> None:
        await put(call, "a", b"x\n")
        assert (await call.run("c", "grep", pattern="x")).data["files"] == ["a"]
        await put(call, "b", b"x\n")
        assert await call.recover("c", "grep", pattern="x") is None
        assert (await call.run("c", "grep", pattern="x")).data["total"] == 2


class TestGlob:
    async def test_files_come_newest_first_with_their_number(self, call: Caller) -> None:
        await some_files(call)
        result = await call("glob", pattern="*.py", limit=2)
        assert result.content == (
            "left/out.py\nsrc/b.py\n(2 of 3 files, newest first; narrow the pattern to see the others)"
        )
        assert (result.data["total"], result.data["more"]) == (3, True)
        assert (await call("glob", pattern="sub/*")).content == '"sub/new\\nline.txt"\n(1 file, newest first)'

    async def test_folders_of_no_interest_are_left_out_unless_named(self, call: Caller) -> None:
        await some_files(call)
        assert "No file in /workspace has a name like 'config'" in (await call("glob", pattern="config")).content
        assert (await call("glob", pattern=".git/*")).data["files"] == [".git/config"]

    async def test_an_absolute_pattern_is_taken_as_meant(self, call: Caller) -> None:
        await some_files(call)
        assert (await call("glob", pattern="/workspace/src/*.py")).data["files"] == ["src/b.py"]
        assert (await call("glob", pattern="*.py", path="src")).data["files"] == ["src/b.py"]

    async def test_what_is_no_folder_says_so(self, call: Caller) -> None:
        await put(call, "a", b"")
        assert (await call("glob", pattern="*", path="a")).error_code == "not_a_directory"
        assert (await call("glob", pattern="*", path="b")).error_code == "not_found"


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("*.py", ["a.py", "x/y/a.py"], ["a.pyc", "a.py/b"]),
        ("src/*.py", ["src/a.py"], ["src/x/a.py", "a.py", "x/src/a.py"]),
        ("src/**/*.py", ["src/a.py", "src/x/y/a.py"], ["a.py"]),
        ("**/test_?.ts", ["test_1.ts", "a/b/test_1.ts"], ["test_12.ts"]),
        ("docs/**", ["docs/a", "docs/a/b"], ["doc/a"]),
        ("*.{ts,tsx}", ["a.ts", "b/a.tsx"], ["a.t", "a.js"]),
        ("[ab]?[!0-9].c", ["axx.c"], ["cxx.c", "ax1.c"]),
        ("a+b(1).txt", ["a+b(1).txt"], ["aab1.txt"]),
        ("[unclosed{", ["[unclosed{"], ["u"]),
        ("!*.py", ["a.js"], ["a.py", "x/a.py"]),
    ],
)
def test_globs_mean_what_they_do_elsewhere(glob: str, matching: list[str], others: list[str]) -> None:
    pattern = searcher.glob_pattern(glob)
    assert [path for path in matching if not pattern.match(path.encode())] == []
    assert [path for path in others if pattern.match(path.encode())] == []


def asked(folder: Path, *, rg: bool, **request: Any) -> dict[str, Any]:
    defaults = {"op": "grep", "path": str(folder), "glob": None, "type": None, "mode": "content", "before": 0}
    more = {"after": 0, "case_insensitive": False, "multiline": False, "limit": 250, "offset": 0, "chars": 30_000}
    program = [sys.executable, "-I", "-S", "-c", Path(searcher.__file__).read_text("utf-8")]
    done = subprocess.run(
        [*program, json.dumps(defaults | more | request)],
        env=None if rg else {"PATH": "/nonexistent"}, capture_output=True, check=True, timeout=30,
    )  # fmt: skip
    assert done.stderr == b""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    "request_fields",
    [
        {"pattern": "ö"},
        {"pattern": "[äö]", "after": 1},
        {"pattern": "ONE", "case_insensitive": True, "before": 2, "after": 1},
        {"pattern": "one.*two", "multiline": True},
        {"pattern": "one$", "mode": "count"},
        {"pattern": "o", "mode": "files_with_matches", "glob": "*.txt"},
        {"pattern": "o", "type": "py"},
        {"pattern": "o", "glob": "!*.py", "limit": 2, "offset": 1},
        {"pattern": "needle"},
    ],
)
def test_without_rg_the_same_is_found(tmp_path: Path, request_fields: dict[str, Any]) -> None:
    files = {
        b"a.txt": b"zero\none\nmore\ntwo\n",
        b"b/c.py": "föö = 'one'\r\nbär = one\n".encode(),
        b"odd\xff\nname.txt": b"one\ntwo",
        b"latin.txt": b"caf\xe9 one\n",
        b"long.txt": b"x" * 2_000 + b"needle" + b"y" * 2_000,
        b"binary": b"one\0two\n",
        b"empty.txt": b"",
        b".git/one": b"one\n",
    }
    for name, content in files.items():
        path = Path(os.fsdecode(bytes(tmp_path) + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    with_rg, without = (asked(tmp_path, rg=rg, **request_fields) for rg in (True, False))
    assert (with_rg.pop("engine"), without.pop("engine")) == ("rg", "python")
    for answer in (with_rg, without):
        if request_fields.get("mode") != "files_with_matches":
            continue
        for row in answer["rows"]:
            row[1] = None  # how often a file matches is not asked
    assert without == with_rg
    assert with_rg["rows"]


def test_a_file_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "there").write_text("x\n")
    for rg in (True, False):
        assert [row[0] for row in asked(tmp_path, rg=rg, pattern="x")["rows"]] == ["there"]
