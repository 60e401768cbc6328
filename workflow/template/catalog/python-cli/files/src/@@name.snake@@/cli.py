"""The command line: reads arguments, calls a command, prints its answer."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from @@name.snake@@.commands import count_words

NAME = "@@name@@"
SUMMARY = @@summary.json@@


def build_parser() -> argparse.ArgumentParser:
    # argparse takes % for the start of a placeholder
    parser = argparse.ArgumentParser(prog=NAME, description=SUMMARY.replace("%", "%%"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    count = commands.add_parser("count", help="count the words of a file")
    count.add_argument("file", type=Path)
    count.set_defaults(run=lambda options: str(count_words(options.file)))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code. `arguments` None: the process's own."""
    options = build_parser().parse_args(arguments)
    try:
        print(options.run(options))
    except OSError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    return 0
