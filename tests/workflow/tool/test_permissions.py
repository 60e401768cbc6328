"""Rules for calls: what they fit, which of them holds, and how shell commands are taken apart for them."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.permissions import Action, Permissions, Rule, Subject
from tests.support.patience import in_bounded_time
from workflow.sandbox.base import MAX_COMMAND_BYTES
from workflow.tool.bash import BashArgs, BashTool
from workflow.tool.commands import subjects_of_line
from workflow.tool.subjects import subjects_of

ALLOW, ASK, DENY = Action.ALLOW, Action.ASK, Action.DENY
NO_WIPING = Permissions.of(["bash: deny rm -rf /*"])
EVASIONS = [
    "rm -rf /",
    "rm -rf /etc",
    "rm  -rf\t/",
    "rm -fr /",
    "rm -r -f /",
    "rm -rfv -- /",
    "rm --recursive --force /",
    "rm -R -f /",
    "a; rm -rf /",
    "a&&rm -rf /",
    "a || rm -rf /",
    "a | rm -rf /",
    "a & rm -rf /",
    "a\nrm -rf /",
    "a # b\nrm -rf /",
    "(cd /; rm -rf /)",
    "{ rm -rf /; }",
    "if a; then rm -rf /; fi",
    "for i in 1 2; do rm -rf /; done",
    "! rm -rf /",
    "echo $(rm -rf /)",
    'echo "$(rm -rf /)"',
    'echo "$(echo "$(rm -rf /)")"',
    "echo `rm -rf /`",
    'echo "`rm -rf /`"',
    "diff <(rm -rf /) b",
    "r'm' -rf /",
    '"rm" -rf "/"',
    "\\rm -rf /",
    "$'rm' -rf /",
    "rm \\\n -rf /",
    "/bin/rm -rf /",
    "X=1 rm -rf /",
    "sudo rm -rf /",
    "sudo -n -u root rm -rf /",
    "env X=1 /bin/rm -rf /",
    "timeout 5 rm -rf /",
    "ls | xargs rm -rf /",
    "find . -exec rm -rf / \\;",
    "bash -c 'rm -rf /'",
    "sudo sh -lc 'ls; rm -rf /'",
    "eval 'rm -rf /'",
    "eval rm -rf /",
    "bash <<END\nrm -rf /\nEND",
    "cat <<END\n$(rm -rf /)\nEND",
    "cat <<'END'\nit's\nEND\nrm -rf /",
    "echo 'it",
    "echo $(rm -rf /",
    "f() { rm -rf /; }; f",
    "case a in a) rm -rf /;; esac",
    "function f { rm -rf /; }; f",
    "cat <<< x\nrm -rf /",
    "cat <<<'x'\nrm -rf /",
    "((x = 1<<y))\nrm -rf /\ny",
    ">log rm -rf /",
    "2> log rm -rf /",
    "X=1 &>>log rm -rf /",
    "</dev/null rm -rf /",
    "rm>log -rf /",
    "sudo 2>&1 rm -rf /",
    "rm -rf build /",
    "rm -r build -f /etc",
    "rm -Rf /",
    "bash <<< 'rm -rf /'",
    "cat <<END | sudo bash\nrm -rf /\nEND",
    "cat <<E'N'D\nEND\nrm -rf /",
    "cat <<END\nEN\\\nD\nrm -rf /",
    "cat <<$'END'\nEND\nrm -rf /",
    "echo \\>& rm -rf /",
    "rm&>log -rf /",
    "$nothing rm -rf /",
    "$(true) rm -rf /",
    "time ${nothing:- } >log rm -rf /",
    "bash -ce 'rm -rf /'",
    "bash -Ec 'rm -rf /'",
    "bash -c -- 'rm -rf /'",
    "bash -c -o errexit 'rm -rf /'",
    "su -c 'rm -rf /'",
    "trap 'rm -rf /' EXIT",
    "env -S 'rm -rf /'",
    "watch 'rm -rf /'",
    "runuser -u nobody rm -rf /",
    "taskset 1 rm -rf /",
]
HARMLESS = [
    "rm -rf build",
    "rm /tmp/x",
    "rm -r /workspace/x",
    "echo 'rm -rf /'",
    'echo "rm -rf /"',
    "echo hi # rm -rf /",
    "cat <<'END' > notes\nrm -rf / and don't\n$(rm -rf /)\nEND\nls",
    "git commit -m 'never rm -rf /'",
    "grep -rf /etc/patterns .",
    "ls 2>&1 | grep x",
    "echo $((1 + 2)) ${HOME} $x",
    "cat <<< 'rm -rf /'",
    "cat <<< x\nls",
    "rm -rf build >/dev/null",
    "rm -rf build 2> /var/log/x",
    "cat > notes <<END\nrm -rf /\nEND",
    "cat <<'END'\nEN\\\nD\nEND\nls",
]


def bash(permissions: Permissions, line: str) -> Action:
    return decided(permissions, "bash", subjects_of_line(line))


def decided(permissions: Permissions, tool: str, subjects: Sequence[Subject]) -> Action:
    rule = permissions.rule(tool, subjects)
    return rule.action if rule else ALLOW


@pytest.mark.parametrize("line", EVASIONS)
def test_a_command_is_known_however_it_is_said(line: str) -> None:
    assert bash(NO_WIPING, line) is DENY


@pytest.mark.parametrize("line", HARMLESS)
def test_what_only_looks_like_it_is_allowed(line: str) -> None:
    assert bash(NO_WIPING, line) is ALLOW


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ("ls -l", ALLOW),
        ("ls; ls", ALLOW),
        ("ls; rm x", DENY),
        ("ls $(rm x)", DENY),
        ("X=1 ls", DENY),
        ("/tmp/ls", DENY),
        ("sudo ls", DENY),
        ("ls 'a", DENY),
        ("ls <<< x\nrm x", DENY),
        ("lsx=1 rm x", DENY),
        ("ls=1 git push", ASK),
        ("ls | bash -c 'ls'", DENY),
        ("git push origin", ASK),
        ("ls && git push", ASK),
    ],
)
def test_where_little_is_allowed_every_command_of_the_line_has_to_be(line: str, action: Action) -> None:
    assert bash(Permissions.of(["bash: deny", "bash: allow ls*", "bash: ask git push*"]), line) is action


def test_the_last_rule_that_fits_decides_and_of_several_lists_the_strictest() -> None:
    rules = ["bash: ask", "bash: allow ls*"]
    assert bash(Permissions.of(rules), "ls -l") is ALLOW
    assert bash(Permissions.of(rules, ["bash: deny ls -l"]), "ls -l") is DENY
    assert bash(Permissions.of(["bash: deny rm*"], ["bash: allow"]), "rm x") is DENY
    assert bash(Permissions.of(), "rm x") is ALLOW


@pytest.mark.parametrize(
    "line", ["git -C /x push", "git --no-pager push -f", "git -c a=b -C /x push", "cd x; git -p push"]
)
def test_a_subcommand_is_known_behind_options(line: str) -> None:
    assert bash(Permissions.of(["bash: ask git push*"]), line) is ASK


@pytest.mark.parametrize("line", ["git commit -m push", "git log -- push", "echo git push"])
def test_a_later_word_is_no_subcommand(line: str) -> None:
    assert bash(Permissions.of(["bash: ask git push*"]), line) is ALLOW


def test_a_long_text_does_not_hide_what_is_refused() -> None:
    rules = Permissions.of(["query: deny *DROP TABLE*"])
    assert decided(rules, "query", subjects_of({"sql": " " * 100_000 + "DROP TABLE users"})) is DENY


def test_no_text_holds_a_worker_up_whatever_the_pattern() -> None:
    rules = Permissions.of(["query: deny *git*push*force*now", "query: deny *?a*a?*a*a*a*b"])
    with in_bounded_time():
        assert decided(rules, "query", subjects_of({"text": "gitpushforce" * 20_000 + "a" * 20_000})) is ALLOW


@given(st.text(alphabet="ab*?\n", max_size=8), st.text(alphabet="ab\n", max_size=12))
def test_patterns_fit_what_fnmatch_says(pattern: str, text: str) -> None:
    assert Rule("x", DENY, pattern).fits(Subject((text,))) is fnmatchcase(text, pattern)


def test_a_rule_may_be_for_several_tools() -> None:
    rules = Permissions.of(["*: ask", "mcp__github__*: deny", "ls: allow"])
    assert [decided(rules, name, []) for name in ("bash", "mcp__github__x", "ls")] == [ASK, DENY, ALLOW]


@pytest.mark.parametrize("path", [".env", "a/.env", "/workspace/./a/../.env", " .env"])
def test_paths_are_known_however_they_are_written(path: str) -> None:
    rules = Permissions.of(["read_file: deny /workspace/*.env"])
    assert decided(rules, "read_file", subjects_of({"file_path": path, "offset": 1})) is DENY


def test_a_path_out_of_a_folder_is_not_allowed_as_one_in_it() -> None:
    rules = Permissions.of(["*: deny", "write_files: allow src/*"])
    inside, outside = ({"file_path": path, "content": "src/"} for path in ("src/a", "src/../b"))
    assert decided(rules, "write_files", subjects_of({"files": [inside]})) is ALLOW
    assert decided(rules, "write_files", subjects_of({"files": [inside, outside]})) is DENY


def test_urls_and_other_texts_are_matched_as_a_whole() -> None:
    rules = Permissions.of(["*: ask", "*: allow https://example.com/*", "*: deny secret*"])
    assert decided(rules, "web_fetch", subjects_of({"url": "https://example.com/a"})) is ALLOW
    assert decided(rules, "web_fetch", subjects_of({"url": "https://evil.test/https://example.com/"})) is ASK
    assert decided(rules, "say", subjects_of({"text": "secret plan", "times": 2})) is DENY


@pytest.mark.parametrize("text", ["", "bash", "bash deny", "bash: refuse", "bash: deny, x", ": deny", "a b: deny"])
def test_what_is_no_rule_is_told_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match=r"TOOL: allow\|ask\|deny \[PATTERN\]"):
        Rule.parse(text)


@given(st.text(alphabet="ab $()'\"`\\;&|<>{}#\n!=-cE", max_size=60))
def test_whatever_follows_a_refused_command_does_not_hide_it(line: str) -> None:
    assert bash(NO_WIPING, f"rm -rf /\n{line}") is DENY


@pytest.mark.parametrize(
    "line",
    [
        *("$(" * 30_000, 'x="$(' * 20_000, "a;" * 30_000, "sudo " * 20_000, "'" * 99_999, "! " * 60_000),
        *("sudo eval " * 19 + "x", "sudo " + "eval x " * 20_000),
        "sudo " + "bash " * 20_000,
        *("cat <<END\n" + "a\\\n" * 30_000, "rm " + "-a " * 30_000, "rm " + "/a " * 30_000, "<<< " * 30_000),
    ],
    ids=lambda line: line[:10],
)
def test_no_line_holds_a_worker_up(line: str) -> None:
    with in_bounded_time():
        bash(NO_WIPING, line)


@pytest.mark.parametrize("pairs", [2, 8])
def test_shells_behind_wrappers_are_followed_to_the_last(pairs: int) -> None:
    rules = Permissions.of(["bash: deny", "bash: allow *", "bash: ask rm -rf /"])
    assert bash(rules, "sudo eval " * pairs + "rm -rf /") is ASK
    assert bash(rules, "sudo -u bash " + "eval " * pairs + "'rm -rf /'") is ASK
    assert bash(rules, "sudo eval " * pairs + "ls") is ALLOW


@pytest.mark.parametrize("line", ["sudo " + "a " * 1_000, "sudo eval " * 14 + "x", "eval $(" * 14 + ")" * 14])
def test_what_is_kept_of_a_line_is_in_proportion_to_it(line: str) -> None:
    assert sum(len(spelling) for subject in subjects_of_line(line) for spelling in subject.spellings) < 50_000


def test_a_line_that_is_too_much_work_is_judged_as_the_strictest_rule_says() -> None:
    assert bash(NO_WIPING, "sudo " + "a " * 10_000) is DENY


def test_a_long_list_of_words_behind_a_wrapper_is_still_read() -> None:
    assert bash(NO_WIPING, "sudo apt-get install " + "a-package-of-some-length " * 100) is ALLOW


def test_a_command_that_is_too_long_to_be_run_is_not_read() -> None:
    assert BashTool().subjects(BashArgs.model_validate({"command": "a;" * MAX_COMMAND_BYTES})) == []
