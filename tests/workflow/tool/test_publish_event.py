from tests.workflow.tool.support import Caller


async def test_an_event_is_published_under_the_calls_key_so_that_a_repetition_is_the_same_event(call: Caller) -> None:
    result = await call.run("c1", "publish_event", name="paid", payload='{"amount": 5}', key="7")
    assert (result.ok, result.data) == (True, {"event_id": "1-0"})
    assert call.published == {"t.r/tool:c1": ("paid", {"amount": 5}, "7")}


async def test_a_payload_that_is_no_json_is_text(call: Caller) -> None:
    await call.run("c1", "publish_event", name="note", payload="{half")
    assert call.published == {"t.r/tool:c1": ("note", "{half", None)}


async def test_an_event_needs_a_name(call: Caller) -> None:
    result = await call("publish_event", name=" ")
    assert (result.ok, result.error_code, call.published) == (False, "invalid_arguments", {})
