"""A worker does not start with templates that nobody could use."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.config import LlmSettings, Settings, TemplatesSettings
from tests.workflow.template.support import MANIFEST, a_template
from workflow.runtime import open_runtime
from workflow.template.template import TemplateError


async def test_a_wrong_template_keeps_the_worker_from_starting_and_a_right_one_is_offered(
    tmp_path: Path, redis_client: Redis
) -> None:
    settings = Settings(
        data=tmp_path, llm=LlmSettings(model="demo"), templates=TemplatesSettings(folder=tmp_path / "own")
    )
    a_template(tmp_path / "own")
    async with open_runtime(settings, redis_client) as runtime:
        described = runtime.tools(["use_template"]).schemas()[0]["function"]["description"]
        assert "note" in described.split("There are: ")[1]
    a_template(tmp_path / "own", "broken", MANIFEST.replace("check", "chekc"))
    with pytest.raises(TemplateError, match="broken"):
        async with open_runtime(settings, redis_client):
            pass
