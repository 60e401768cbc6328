"""Names and labels of threads and runs: nobody's change is lost unawares."""

import asyncio

import pytest

from shared.types import RunStatus
from tests.gateway.support import Gateway

KINDS = ["agent", "runs"]


async def a(kind: str, gateway: Gateway) -> str:
    """The path of a thread, or of a run that has ended."""
    thread_id = await gateway.thread()
    if kind == "agent":
        return f"/api/agent/{thread_id}"
    attempt = await gateway.attempt(run_id := await gateway.execute(thread_id))
    await attempt.end(RunStatus.SUCCEEDED, {}, {})
    return f"/api/runs/{run_id}"


@pytest.mark.parametrize("kind", KINDS)
async def test_each_change_makes_a_version_and_what_is_done_to_an_older_one_is_refused(
    gateway: Gateway, kind: str
) -> None:
    client, path = gateway.client, await a(kind, gateway)
    read = await client.get(path)
    assert (read.json()["version"], read.headers["etag"]) == (1, '"1"')
    first = await client.patch(path, json={"name": "A"}, headers={"If-Match": '"1"'})
    assert (first.status_code, first.json()["version"], first.headers["etag"]) == (200, 2, '"2"')
    for body, headers in (({"name": "B"}, {"If-Match": '"1"'}), ({"name": "B", "expected_version": 1}, {})):
        refused = await client.patch(path, json=body, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert (await client.delete(path, headers={"If-Match": '"1"'})).status_code == 409
    assert (await client.patch(path, json={}, headers={"If-Match": '"1"'})).status_code == 409
    for body in ({"name": "B"}, {"name": "B", "expected_version": 2}):
        assert (await client.patch(path, json=body, headers={"If-Match": "nonsense"})).status_code == 400
    assert (await client.get(path)).json() == first.json()
    assert (await client.patch(path, json={"name": "B"})).headers["etag"] == '"3"'
    assert (await client.patch(path, json={"name": "C", "expected_version": 3})).headers["etag"] == '"4"'
    assert (await client.delete(path, headers={"If-Match": '"4"'})).status_code == 204


@pytest.mark.parametrize("kind", KINDS)
async def test_of_twenty_who_change_what_they_have_read_one_does(gateway: Gateway, kind: str) -> None:
    path = await a(kind, gateway)
    headers = {"If-Match": (await gateway.client.get(path)).headers["etag"]}
    patches = [gateway.client.patch(path, json={"name": f"n{n}"}, headers=headers) for n in range(20)]
    answers = [answer.status_code for answer in await asyncio.gather(*patches)]
    assert sorted(answers) == [200, *19 * [409]]


async def test_a_run_that_goes_on_keeps_its_version(gateway: Gateway) -> None:
    run_id = await gateway.execute(await gateway.thread())
    path = f"/api/runs/{run_id}"
    before = (await gateway.client.get(path)).headers["etag"]
    await gateway.attempt(run_id)
    read = await gateway.client.get(path)
    assert (read.json()["status"], read.headers["etag"]) == ("running", before)
