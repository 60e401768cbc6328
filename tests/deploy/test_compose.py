"""The compose file and the images, as far as they can be judged where no container engine runs."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import redis

from scripts.setup import uv_install
from shared import keys
from tests.deploy.compose import ROOT, load

KEY = {"TRUNKLINE_API_KEY": "a-secret-of-mine-0123"}
OURS = ("gateway", "migrate", "modem", "sandbox-host")


def test_the_compose_file_is_valid() -> None:
    schema = json.loads((ROOT / "tests/deploy/compose-spec.json").read_text())
    document = load(KEY)
    # Anchors' own keys (x-...) are Compose's extension point, which this version of the schema did not know yet.
    file = {name: part for name, part in document.items() if not name.startswith("x-")}
    jsonschema.Draft7Validator(schema).validate(file)


def test_a_secret_that_must_be_set_is_asked_for() -> None:
    with pytest.raises(KeyError, match="TRUNKLINE_API_KEY"):
        load({})


def test_our_services_have_no_rights_that_they_do_not_need() -> None:
    for name in OURS:
        service = load(KEY)["services"][name]
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert "no-new-privileges:true" in service["security_opt"]
        assert "privileged" not in service


def test_the_sandbox_host_reaches_neither_the_state_nor_the_internet() -> None:
    document = load(KEY)
    networks = document["services"]["sandbox-host"]["networks"]
    assert all(document["networks"][network]["internal"] for network in networks)
    assert not set(networks) & set(document["services"]["valkey"]["networks"])
    assert not [
        name for name in document["services"]["sandbox-host"]["environment"] if "REDIS" in name or "LLM" in name
    ]


def test_gateways_and_workers_reach_the_sandbox_host_and_have_its_token() -> None:
    services = load(KEY)["services"]
    for name in ("gateway", "modem"):
        assert set(services[name]["networks"]) & set(services["sandbox-host"]["networks"])
        assert "sandbox-token:/run/trunkline:ro" in services[name]["volumes"]


def test_every_service_says_whether_it_is_well() -> None:
    services = load(KEY)["services"]
    assert [name for name, service in services.items() if "healthcheck" not in service] == ["migrate"], "which ends"


def test_a_modem_is_well_while_it_holds_its_lease(redis_url: str) -> None:
    [_, _, *check] = load(KEY)["services"]["modem"]["healthcheck"]["test"]
    environment = {**os.environ, "TRUNKLINE__REDIS__URL": redis_url, "HOSTNAME": "box"}

    def is_well() -> bool:
        done = subprocess.run([sys.executable, *check], cwd=ROOT, env=environment, capture_output=True, check=False)
        assert not done.stderr, done.stderr
        return done.returncode == 0

    with redis.Redis.from_url(redis_url) as client:
        client.zadd(keys.WORKERS, {"box-1": (time.time() - 1) * 1000, "box-2-1": (time.time() + 60) * 1000})
        assert not is_well()
        client.zadd(keys.WORKERS, {"box-1": (time.time() + 60) * 1000})
        assert is_well()


def test_what_the_compose_file_names_is_there() -> None:
    document = load(KEY)
    for name in OURS:
        build = document["services"][name]["build"]
        dockerfile = (ROOT / build["dockerfile"]).read_text()
        assert f" AS {build['target']}\n" in dockerfile
        for option in document["services"][name]["security_opt"]:
            if option.startswith("seccomp="):
                assert (ROOT / option.removeprefix("seccomp=")).is_file()
        for volume in document["services"][name].get("volumes", []):
            assert volume.partition(":")[0] in document["volumes"]


def test_the_image_runs_the_command_that_the_compose_file_runs() -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    command = load(KEY)["services"]["gateway"]["command"]
    assert f"CMD {json.dumps(command)}" in dockerfile


def test_the_build_is_given_every_file_that_it_copies() -> None:
    ignore = (ROOT / ".dockerignore").read_text().split()
    let_in = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert let_in >= {"pyproject.toml", "README.md", "LICENSE", "requirements"}
    assert let_in >= {"gateway", "modem", "shared", "trunkline", "workflow"}


@pytest.mark.slow
def test_the_gateways_image_has_all_that_a_gateway_imports(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = str(venv / "bin" / "python")
    assert uv_install("--no-deps", "--require-hashes", "-r", "requirements/gateway.txt", python=python)
    subprocess.run([python, "-c", "import gateway.app, gateway.server"], cwd=ROOT, check=True)
