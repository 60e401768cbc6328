"""What a model is told about its command beside the output."""

import pytest

from workflow.sandbox.base import Capabilities, ExecResult, ExecStatus, Network, Output
from workflow.tool.shell import fault_of, hints_for


def ended(code: int, output: str = "", killed_by: str | None = None) -> ExecResult:
    status = ExecStatus.KILLED if killed_by else ExecStatus.EXITED
    return ExecResult(status, code, Output(output), 0, None, "/workspace", 10, killed_by)


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("a\x00b", "NUL"),
        ("x" * 200_000, "write_files"),
        ('{"command": "ls -la"}', "its field's text: 'ls -la'"),
        ("{'command': 'ls'}", "its field's text: 'ls'"),
        ('["ls", "-la"]', "'ls -la'"),
        ("['ls', '-la']", "'ls -la'"),
    ],
)
def test_a_command_that_is_none_is_told_so(command: str, fault: str) -> None:
    assert fault in (fault_of(command) or "")


@pytest.mark.parametrize(
    "command",
    [
        "ls",
        "[ -f x ] && echo y",
        "[[ $a == b ]]",
        "{ ls; pwd; }",
        "[1]",
        '["$a" = b]',
        "[" * 500,
        "{" * 500,
        "[]",
        "{}",
    ],
)
def test_shell_syntax_is_not_taken_for_a_literal(command: str) -> None:
    assert fault_of(command) is None


@pytest.mark.parametrize(
    ("result", "hint"),
    [
        (ended(126), "not executable"),
        (ended(127), "no such command"),
        (ended(137), "killed"),
        (ended(1, "write: No space left on device"), "disk space is used up"),
        (ended(254, "bash: fork: retry: Resource temporarily unavailable"), "256 processes and threads"),
        (ended(1, "RuntimeError: can't start new thread"), "256 processes and threads"),
        (ended(6, "curl: (6) Could not resolve host: example.org"), "has no network"),
    ],
)
def test_an_exit_code_is_explained(result: ExecResult, hint: str) -> None:
    assert hint in " ".join(hints_for(result, Capabilities(processes=256)))


@pytest.mark.parametrize(
    "result",
    [ended(0, "Could not resolve host"), ended(1, "AssertionError"), ended(137, killed_by="memory limit 1 GiB")],
)
def test_nothing_is_said_where_nothing_is_to_be_explained(result: ExecResult) -> None:
    assert hints_for(result, Capabilities(processes=256)) == []


def test_a_sandbox_with_a_network_is_not_blamed() -> None:
    assert hints_for(ended(6, "Could not resolve host: example.org"), Capabilities(Network("open"))) == []


@pytest.mark.parametrize(
    "output",
    [
        "curl: (6) Could not resolve host: example.org",
        "curl: (56) CONNECT tunnel failed, response 403",
        "fatal: unable to access 'https://example.org/': CONNECT tunnel failed, response 403",
        "OSError('Tunnel connection failed: 403 Not allowed from this sandbox')",
        "npm error code ECONNRESET tunneling socket could not be established, statusCode=403",
    ],
)
def test_a_program_that_may_not_go_there_is_explained_by_what_it_may_reach(output: str) -> None:
    policy = Network("allow", ["packages.example.com", "*.files.example.com"], proxy=True)
    (hint,) = hints_for(ended(1, output), Capabilities(policy))
    assert "only these hosts: packages.example.com, *.files.example.com, over HTTP and HTTPS only" in hint
