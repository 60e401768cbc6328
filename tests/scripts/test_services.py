"""When a service of the stack counts as ready."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from scripts.stack.folder import DataFolder
from scripts.stack.services import Addresses, Services
from shared import keys
from shared.config import Settings
from tests.support.ports import free_port
from tests.support.valkey import Valkey


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    folder, valkey = DataFolder(tmp_path), Valkey(tmp_path, durable=False)
    valkey.start()
    with redis.Redis.from_url(valkey.url) as client:
        client.config_set("requirepass", folder.valkey_password())
    addresses = Addresses(urlsplit(valkey.url).port or 0, free_port(), None, "http://127.0.0.1:1")
    services = Services(folder, Settings(data=tmp_path), addresses)
    yield services
    await services.redis.aclose()
    valkey.kill()


async def test_a_worker_is_ready_when_it_holds_a_lease_and_not_by_one_that_its_dead_predecessor_left(
    services: Services,
) -> None:
    ready = services.worker(1).ready
    assert not await ready()
    await services.redis.zadd(keys.WORKERS, {"worker-1-old": (time.time() - 1) * 1000})
    await services.redis.zadd(keys.WORKERS, {"worker-11-new": (time.time() + 60) * 1000})
    assert not await ready()
    await services.redis.zadd(keys.WORKERS, {"worker-1-new": (time.time() + 60) * 1000})
    assert await ready()


async def test_a_sandbox_host_knows_where_the_packages_of_templates_are_and_no_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE__TEMPLATES__PACKAGES", "/srv/packages")
    monkeypatch.setenv("TRUNKLINE__LLM__API_KEY", "sk-secret")
    services = Services(DataFolder(tmp_path), Settings(data=tmp_path), Addresses(1, 2, None, "http://127.0.0.1:3"))
    environment = services.sandbox_host().environment
    assert environment["TRUNKLINE__TEMPLATES__PACKAGES"] == "/srv/packages"
    assert not [name for name, value in environment.items() if value == "sk-secret"]
    await services.redis.aclose()


async def test_where_sandboxes_are_elsewhere_their_host_is_the_one_that_has_the_providers_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2B_API_KEY", "e2b_secret")
    for provider, module, knows in (("local", "host", False), ("e2b", "remote_host", True)):
        settings = Settings.model_validate({"data": tmp_path, "sandbox": {"provider": provider}})
        services = Services(DataFolder(tmp_path), settings, Addresses(1, 2, None, "http://127.0.0.1:3"))
        service = services.sandbox_host()
        assert service.command[-1] == f"workflow.sandbox.{module}"
        assert ("E2B_API_KEY" in service.environment, "TRUNKLINE__REDIS__URL" in service.environment) == (knows, knows)
        await services.redis.aclose()
