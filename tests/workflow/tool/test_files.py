"""The file tools, against a real sandbox."""

import pytest

from tests.workflow.tool.support import Caller
from workflow.sandbox.base import FileWrite
from workflow.tool.base import CallLimits
from workflow.tool.content import digest


async def put(call: Caller, path: str, content: bytes) -> None:
    """Behind the tools' back."""
    call.calls += 1
    await call.box.write([FileWrite(path, content)], f"t.x/put:{call.calls}", 1, b"")


async def get(call: Caller, path: str) -> bytes:
    return (await call.box.read(path)).content


class TestReadFile:
    async def test_a_file_is_shown_with_its_numbers(self, call: Caller) -> None:
        await put(call, "a.py", b"import os\r\n\n\tpass")
        result = await call("read_file", file_path="a.py")
        assert result.content == "     1→import os\n     2→\n     3→\tpass\n(End of file - 3 lines)"
        assert result.data == {
            "path": "/workspace/a.py", "size": 17, "total_lines": 3, "first_line": 1, "last_line": 3,
            "sha256": digest(b"import os\r\n\n\tpass"),
        }  # fmt: skip

    async def test_a_page_says_how_to_go_on(self, call: Caller) -> None:
        await put(call, "n", "".join(f"{n}\n" for n in range(1, 5_001)).encode())
        first = await call("read_file", file_path="n")
        assert first.content.endswith("  2000→2000\n(Showing lines 1-2000 of 5000. Use offset=2001 to continue.)")
        middle = await call("read_file", file_path="n", offset=2_001, limit=2)
        assert middle.content.split("\n")[:2] == ["  2001→2001", "  2002→2002"]
        beyond = await call("read_file", file_path="n", offset=5_001)
        assert (beyond.ok, beyond.error_code) == (False, "past_the_end")
        assert "has 5,000 lines" in beyond.content

    async def test_a_page_of_long_lines_is_bounded(self, call: Caller) -> None:
        await put(call, "wide", (b"x" * 1_900 + b"\n") * 100)
        result = await call("read_file", file_path="wide")
        assert len(result.content) < 50_200
        assert "(Showing lines 1-26 of 100. Use offset=27 to continue.)" in result.content

    async def test_reading_again_what_has_not_changed_is_cut_short_once(self, call: Caller) -> None:
        await put(call, "a", b"1\n2\n3\n")
        first = await call("read_file", file_path="a")
        assert (
            "has not changed since you last read lines 2-3"
            in (await call("read_file", file_path="a", offset=2)).content
        )
        assert (await call("read_file", file_path="a")).content == first.content
        await put(call, "a", b"4\n")
        assert (await call("read_file", file_path="a")).content.startswith("     1→4\n")

    async def test_a_missing_file_is_answered_with_near_names(self, call: Caller) -> None:
        await put(call, "src/Server.py", b"")
        await put(call, "src/notes.txt", b"")
        near = await call("read_file", file_path="src/server.py")
        assert near.content == "There is no /workspace/src/server.py. Did you mean /workspace/src/Server.py?"
        assert near.error_code == "not_found"
        far = await call("read_file", file_path="src/zzz")
        assert far.content == "There is no /workspace/src/zzz. /workspace/src holds: Server.py, notes.txt."
        folder = await call("read_file", file_path="scr/deep/Server.py")
        assert folder.content == (
            "There is no /workspace/scr/deep/Server.py. Its nearest folder that exists is /workspace. "
            "Did you mean /workspace/src/?"
        )

    async def test_what_cannot_be_read_says_what_it_is(self, call: Caller) -> None:
        await put(call, "image.png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d")
        await put(call, "dir/a", b"")
        await call("bash", command="mkfifo fifo; ln -s dir link; ln -s nowhere dangling")
        for path, code, words in [
            ("image.png", "binary_file", "PNG image, 12 B"),
            ("dir", "is_a_directory", "call ls"),
            ("link", "is_a_directory", "call ls"),
            ("fifo", "not_a_file", "a pipe"),
            ("dangling", "not_found", "There is no /workspace/dangling"),
        ]:
            result = await call("read_file", file_path=path)
            assert (result.ok, result.error_code) == (False, code)
            assert words in result.content

    async def test_a_file_too_large_to_show_is_left_to_other_programs(self, call: Caller) -> None:
        call.limits = CallLimits(file_bytes=1_000)
        await put(call, "log", b"x\n" * 1_000)
        result = await call("read_file", file_path="log")
        assert result.error_code == "too_large"
        assert "2.0 KiB" in result.content
        assert "sed -n '1,200p' /workspace/log" in result.content

    async def test_an_empty_file_says_so(self, call: Caller) -> None:
        await put(call, "empty", b"")
        assert (await call("read_file", file_path="empty")).content == "(/workspace/empty is empty: 0 bytes)"

    async def test_bytes_that_are_no_utf8_are_shown_and_named(self, call: Caller) -> None:
        await put(call, "latin", "päper".encode("latin-1"))
        result = await call("read_file", file_path="latin")
        assert result.content.startswith("     1→p\ufffdper\n")
        assert "Bytes that are not UTF-8" in result.content

    async def test_the_host_is_out_of_reach(self, call: Caller) -> None:
        await call("bash", command="ln -s /etc/shadow shadow")
        for path in ("shadow", "/etc/shadow", "../../etc/shadow"):
            assert not (await call("read_file", file_path=path)).ok


class TestEditFile:
    async def test_the_change_is_shown_as_a_diff(self, call: Caller) -> None:
        await put(call, "a.py", b"a = 1\nb = 2\nc = 3\n")
        result = await call("edit_file", file_path="a.py", old_string="b = 2", new_string="b = 20\nd = 4")
        assert result.content == (
            "Edited /workspace/a.py: now lines 2-3, +2 -1\n@@ -1,3 +1,4 @@\n a = 1\n-b = 2\n+b = 20\n+d = 4\n c = 3"
        )
        assert await get(call, "a.py") == b"a = 1\nb = 20\nd = 4\nc = 3\n"
        ((kind, event),) = result.events
        assert (kind, event["path"], event["action"], event["added"], event["removed"]) == (
            "file", "/workspace/a.py", "edited", 2, 1,
        )  # fmt: skip
        assert event["sha256"] == digest(await get(call, "a.py"))

    async def test_marks_endings_modes_and_odd_bytes_stay(self, call: Caller) -> None:
        await put(call, "odd", b"\xef\xbb\xbfone\r\ncaf\xe9\r\nthree")
        await call("bash", command="chmod 755 odd")
        assert (await call("edit_file", file_path="odd", old_string="one\n", new_string="1\n2\n")).ok
        assert await get(call, "odd") == b"\xef\xbb\xbf1\r\n2\r\ncaf\xe9\r\nthree"
        assert (await call.box.stat("odd")).mode == 0o755

    async def test_a_link_stays_a_link(self, call: Caller) -> None:
        await put(call, "real", b"a\n")
        await call("bash", command="ln -s real link")
        assert (await call("edit_file", file_path="link", old_string="a", new_string="b")).ok
        assert (await call("bash", command="cat real; readlink link")).content.startswith("b\nreal\n")

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            ({"file_path": "none", "old_string": "a", "new_string": "b"}, "not_found"),
            ({"file_path": ".", "old_string": "a", "new_string": "b"}, "is_a_directory"),
            ({"file_path": "f", "old_string": "nowhere", "new_string": "b"}, "not_found"),
            ({"file_path": "f", "old_string": "a", "new_string": "b"}, "ambiguous"),
            ({"file_path": "f", "old_string": "", "new_string": "b"}, "empty_old_string"),
            ({"file_path": "f", "old_string": "a", "new_string": "a"}, "no_change"),
        ],
    )
    async def test_a_refused_edit_changes_nothing(self, call: Caller, arguments: dict[str, str], code: str) -> None:
        await put(call, "f", b"a\na\n")
        result = await call("edit_file", **arguments)
        assert (result.ok, result.error_code, result.events) == (False, code, [])
        assert await get(call, "f") == b"a\na\n"

    async def test_a_file_that_changed_since_it_was_read_is_edited_only_where_it_is_certain(self, call: Caller) -> None:
        await put(call, "f", b"a\nb\n")
        await call("read_file", file_path="f")
        await put(call, "f", b"a\nc\n")
        lost = await call("edit_file", file_path="f", old_string="b", new_string="x")
        assert not lost.ok
        assert "The file has changed since you last saw it" in lost.content
        kept = await call("edit_file", file_path="f", old_string="a", new_string="x")
        assert kept.ok
        assert "The file has changed since you last saw it" in kept.content
        assert await get(call, "f") == b"x\nc\n"
        refused = await call("write_files", files=[{"file_path": "f", "content": "mine\n"}])
        assert "has changed since you last saw it" in refused.content

    async def test_code_that_does_not_parse_is_told_at_once(self, call: Caller) -> None:
        await put(call, "a.py", b"def f():\n    return 1\n")
        result = await call("edit_file", file_path="a.py", old_string="return 1", new_string="return (1")
        assert result.ok
        assert "does not parse, mend it:\n/workspace/a.py:2: '(' was never closed" in result.content
        assert result.data["syntax_errors"] == ["/workspace/a.py:2: '(' was never closed"]
        mended = await call("edit_file", file_path="a.py", old_string="return (1", new_string="return (1)")
        assert "does not parse" not in mended.content

    async def test_the_syntax_check_leaves_the_working_folder(self, call: Caller) -> None:
        await call("bash", command="cd /tmp")
        await put(call, "/workspace/a.py", b"a\n")
        await call("edit_file", file_path="a.py", old_string="a", new_string="b")
        assert (await call("bash", command="pwd")).content.startswith("/tmp\n")

    async def test_an_edit_in_flight_at_a_crash_is_done_once(self, call: Caller) -> None:
        await put(call, "f.py", b"x = 1\n")
        arguments = {"file_path": "f.py", "old_string": "x", "new_string": "x = x", "replace_all": False}
        assert await call.recover("c", "edit_file", **arguments) is None
        result = await call.run("c", "edit_file", **arguments)
        await put(call, "f.py", b"something = 'else'\n")
        assert await call.recover("c", "edit_file", **arguments) == result
        assert await get(call, "f.py") == b"something = 'else'\n"


class TestWriteFiles:
    async def test_files_and_their_folders_are_made(self, call: Caller) -> None:
        result = await call(
            "write_files",
            files=[
                {"file_path": "src/deep/a.txt", "content": "äb\n"},
                {"file_path": "/workspace/run", "content": "#!/bin/sh\necho ran\n", "executable": True},
            ],
        )
        assert result.content == (
            "Wrote 2 files:\n"
            "- /workspace/src/deep/a.txt: created, 1 line, 4 B\n"
            "- /workspace/run: created, 2 lines, 19 B"
        )
        assert [(kind, data["path"], data["action"]) for kind, data in result.events] == [
            ("file", "/workspace/src/deep/a.txt", "created"),
            ("file", "/workspace/run", "created"),
        ]
        assert await get(call, "src/deep/a.txt") == "äb\n".encode()
        assert (await call("bash", command="./run")).content.startswith("ran\n")

    async def test_a_file_that_was_not_read_is_not_replaced_and_neither_is_any_other(self, call: Caller) -> None:
        await put(call, "old", b"precious\n")
        files = [{"file_path": "new", "content": "1\n"}, {"file_path": "old", "content": "2\n"}]
        refused = await call("write_files", files=files)
        assert refused.content == (
            "Nothing was written:\n- /workspace/old exists, and you have not read it. "
            "Read it first, or choose another name."
        )
        assert (await call("bash", command="ls")).content.startswith("old\n")
        await call("read_file", file_path="old")
        assert "/workspace/old: updated" in (await call("write_files", files=files)).content
        again = await call("write_files", files=files)
        assert "/workspace/old: unchanged" in again.content
        assert again.events == []

    async def test_a_file_that_changed_since_it_was_read_is_not_replaced(self, call: Caller) -> None:
        await call("write_files", files=[{"file_path": "f", "content": "1\n"}])
        await call("bash", command="echo 2 >> f")
        refused = await call("write_files", files=[{"file_path": "f", "content": "3\n"}])
        assert "has changed since you last saw it" in refused.content
        assert await get(call, "f") == b"1\n2\n"

    async def test_an_empty_file_may_be_filled_unread(self, call: Caller) -> None:
        await call("bash", command="touch f")
        assert (await call("write_files", files=[{"file_path": "f", "content": "1\n"}])).ok

    async def test_left_out_code_is_refused_with_its_line(self, call: Caller) -> None:
        content = "import os\n# ... rest of the code ...\n"
        refused = await call("write_files", files=[{"file_path": "a.py", "content": content}])
        assert "/workspace/a.py line 2 stands for left-out code: '# ... rest of the code ...'" in refused.content
        await put(call, "a.py", content.encode())
        await call("read_file", file_path="a.py")
        assert (await call("write_files", files=[{"file_path": "a.py", "content": content + "x = 1\n"}])).ok

    @pytest.mark.parametrize(
        ("files", "words"),
        [
            ([{"file_path": "a", "content": ""}, {"file_path": "./a", "content": ""}], "/workspace/a is given twice"),
            ([{"file_path": "big", "content": "x" * (5 * 1024 * 1024 + 1)}], "more than 5.0 MiB"),
            ([{"file_path": "a", "content": ""}, {"file_path": "dir", "content": ""}], "/workspace/dir is a directory"),
            ([{"file_path": "a", "content": ""}, {"file_path": "file/x", "content": ""}], "/workspace/file/x"),
            ([{"file_path": "a", "content": ""}, {"file_path": "/usr/x", "content": ""}], "/usr/x"),
            ([{"file_path": "a", "content": ""}, {"file_path": "n\x00l", "content": ""}], "n"),
        ],
    )
    async def test_one_impossible_file_and_none_is_written(
        self, call: Caller, files: list[dict[str, str]], words: str
    ) -> None:
        await call("bash", command="mkdir dir; echo 1 > file")
        result = await call("write_files", files=files)
        assert not result.ok
        assert words in result.content
        assert (await call("bash", command="ls")).content.startswith("dir\nfile\n[")

    async def test_code_that_does_not_parse_is_told_at_once(self, call: Caller) -> None:
        result = await call(
            "write_files",
            files=[
                {"file_path": "a b.py", "content": "def f(:\n"},
                {"file_path": "c.json", "content": '{"a": 1,}'},
                {"file_path": "fine.py", "content": "x = 1\n"},
            ],
        )
        assert result.ok
        assert [error.partition(":")[0] for error in result.data["syntax_errors"]] == [
            "/workspace/a b.py", "/workspace/c.json",
        ]  # fmt: skip

    async def test_files_in_flight_at_a_crash_are_written_once(self, call: Caller) -> None:
        arguments = {"files": [{"file_path": "f", "content": "1\n"}]}
        assert await call.recover("c", "write_files", **arguments) is None
        result = await call.run("c", "write_files", **arguments)
        await put(call, "f", b"2\n")
        assert await call.recover("c", "write_files", **arguments) == result
        assert await get(call, "f") == b"2\n"


class TestLs:
    async def test_folders_come_first_with_what_is_in_them(self, call: Caller) -> None:
        for path in (
            "b.txt",
            "a.bin",
            "src/x.py",
            "src/sub/y.py",
            "node_modules/m/index.js",
            "node_modules/n/index.js",
        ):
            await put(call, path, b"x" * 1_500)
        await call("bash", command="ln -s b.txt link; mkdir empty")
        assert (await call("ls")).content == (
            "/workspace (3 folders, 3 files)\nempty/\nnode_modules/  (2 items, not shown)\nsrc/  (2 items, not shown)\n"
            "a.bin  1.5 KiB\nb.txt  1.5 KiB\nlink  (symbolic link)"
        )
        assert (await call("ls", path="src", depth=2)).content == (
            "/workspace/src (1 folder, 2 files)\nsub/\n  y.py  1.5 KiB\nx.py  1.5 KiB"
        )
        deep = (await call("ls", depth=3)).content
        assert "node_modules/  (2 items, not shown)" in deep
        assert "    y.py" in deep

    async def test_names_can_be_left_out(self, call: Caller) -> None:
        for path in ("a.py", "a.pyc", "out/b.py"):
            await put(call, path, b"")
        result = await call("ls", ignore=["*.pyc", "out"])
        assert result.content == "/workspace (1 file)\na.py  0 B\n(2 left out by ignore)"
        assert result.data["entries"] == [{"path": "a.py", "kind": "file", "size": 0}]

    async def test_many_entries_are_bounded(self, call: Caller) -> None:
        await call("bash", command="seq -f 'file-%04g' 700 | xargs touch")
        result = await call("ls")
        assert len(result.data["entries"]) == 500
        assert result.data["truncated"]
        assert "There are more than 500" in result.content

    async def test_what_is_no_folder_says_so(self, call: Caller) -> None:
        await put(call, "file", b"")
        assert (await call("ls", path="file")).error_code == "not_a_directory"
        assert (await call("ls", path="none")).error_code == "not_found"
        assert (await call("ls", path="/workspace/file/x")).error_code in ("not_found", "refused")
        assert (await call("ls")).content.startswith("/workspace (1 file)")

    async def test_an_empty_folder_says_so(self, call: Caller) -> None:
        await call("bash", command="mkdir e")
        assert (await call("ls", path="e")).content == "/workspace/e is empty"
