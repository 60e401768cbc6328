"""Python functions as tools: those that block have threads of their own."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from shared.config import Settings, ToolDefinition, ToolsSettings
from workflow.tool.base import Tool, ToolResult
from workflow.tool.catalogue import all_tools
from workflow.tool.dispatch import run_call
from workflow.tool.registry import Registry
from workflow.tool.testing import Calls

LET_GO = threading.Event()


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    LET_GO.clear()
    yield
    LET_GO.set()


def hang() -> None:
    LET_GO.wait(20)


def pay(amount: int, effect_key: str) -> Any:
    return [amount, effect_key]


async def pay_async(amount: int, effect_key: str) -> Any:
    return [amount, effect_key]


def tools(*names: str, threads: int = 64, schema: Any = None, **more: Any) -> Registry:
    """The functions as tools of one worker."""
    given = {"type": "function", "description": "It.", "effect": "repeatable", "input_schema": schema or {}, **more}
    settings = ToolsSettings(
        definitions={
            name: ToolDefinition.model_validate({**given, "config": {"function": f"{__name__}:{name}"}})
            for name in names
        },
        function_modules=[__name__],
        function_threads=threads,
    )
    found: list[Tool[Any]] = [tool for tool in all_tools(Settings(tools=settings)).tools if tool.name in names]
    return Registry(found)


async def call(registry: Registry, name: str, **arguments: Any) -> ToolResult:
    return await run_call(registry.parse(name, json.dumps(arguments)), Calls().context())


async def test_functions_that_hang_leave_the_loops_own_threads_free() -> None:
    hanging = tools("hang", timeout_seconds=0.05)
    results = await asyncio.gather(*(call(hanging, "hang") for _ in range(40)))
    assert {result.error_code for result in results} == {"tool_timeout"}
    async with asyncio.timeout(10):
        await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
        await asyncio.to_thread(int)


async def test_a_function_for_which_there_is_no_thread_is_not_called_and_the_model_told() -> None:
    registry = tools("hang", "pay", threads=2, timeout_seconds=1)
    await asyncio.gather(call(registry, "hang"), call(registry, "hang"))
    refused = await call(registry, "pay", amount=1)
    assert refused.error_code == "tool_busy"
    assert "pay was not called" in refused.content
    LET_GO.set()
    async with asyncio.timeout(10):
        while not (result := await call(registry, "pay", amount=1)).ok:
            assert result.error_code == "tool_busy"
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", ["pay", "pay_async"])
async def test_a_function_that_names_it_gets_the_key_of_its_effect(name: str) -> None:
    result = await call(tools(name), name, amount=3, effect_key="mine")
    assert result.data["output"] == [3, "thread.run/tool:call_1"]


async def test_where_the_schema_has_an_effect_key_it_is_an_argument_as_any_other() -> None:
    schema = {"type": "object", "properties": {"effect_key": {"type": "string"}}}
    result = await call(tools("pay", schema=schema), "pay", amount=3, effect_key="mine")
    assert result.data["output"] == [3, "mine"]
