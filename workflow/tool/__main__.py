"""`python -m workflow.tool` lists the tools that agents are given here; with a name and JSON arguments it calls one.

A call has no agent and no sandbox around it.
"""

import asyncio
import sys
from collections.abc import Sequence

from shared.config import export_env_file, load_settings
from shared.errors import AppError
from workflow.tool.base import CallLimits
from workflow.tool.catalogue import all_tools
from workflow.tool.dispatch import run_call
from workflow.tool.testing import Calls
from workflow.web.web import Web


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 1 where the tool's result is an error, 2 where nothing could be called."""
    try:
        export_env_file()
        settings = load_settings()
        tools = all_tools(settings)
        if not arguments:
            rows = [f"{tool.name:20} {tool.effect:11} {type(tool).__module__}" for tool in tools.tools]
            sys.stdout.write("\n".join(rows) + "\n")
            return 0
        name, text = arguments[0], " ".join(arguments[1:])
        limits = CallLimits(settings.tools.max_output_chars, tool_seconds=settings.tools.timeout_seconds)
        calls = Calls(limits=limits, web=Web.of(settings))
        result = asyncio.run(run_call(tools.parse(name, text), calls.context()))
    except AppError as error:
        sys.stderr.write(f"{error.detail}\n")
        return 2
    sys.stdout.write(f"{result.content}\n")
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
