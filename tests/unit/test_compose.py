"""compose.yaml against the Compose specification's schema, and against the farm it describes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from farm.cli.app import app
from farm.settings import Settings

ROOT = Path(__file__).parents[2]
FILE = ROOT / "compose.yaml"
STORES = {"redis", "postgres", "s3"}
SECRET = re.compile(r"PASSWORD|SECRET|ACCESS_KEY")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return compose["services"]


def farm_services(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in services.items() if name not in STORES}


def without_variables(words: list[str]) -> list[str]:
    """A command with Compose's `${NAME:-default}` replaced by its default."""
    return [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in words]


def test_the_file_follows_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    checked = subprocess.run(check, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_schema_check_can_fail(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yaml"
    broken.write_text(FILE.read_text().replace("healthcheck:", "healthchek:", 1))
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(broken)]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 1


def test_every_farm_setting_named_in_it_exists(services: dict[str, dict[str, Any]]) -> None:
    known = {f"FARM_{name.upper()}" for name in Settings.model_fields}
    named = {
        key for service in farm_services(services).values() for key in service["environment"] if key.startswith("FARM_")
    }
    assert named >= {"FARM_DATABASE_URL", "FARM_REDIS_URL", "FARM_STORAGE_URL", "FARM_S3_ENDPOINT_URL"}
    assert named <= known


def test_every_farm_service_runs_a_command_that_exists(services: dict[str, dict[str, Any]]) -> None:
    for name, service in farm_services(services).items():
        words = without_variables(service["command"])
        shown = CliRunner().invoke(app, [*words, "--help"])
        assert shown.exit_code == 0, f"{name}: farm {' '.join(words)}: {shown.output}"


def test_every_option_given_to_a_worker_is_one_it_knows(services: dict[str, dict[str, Any]]) -> None:
    group = typer.main.get_command(app)
    for service in farm_services(services).values():
        words = without_variables(service["command"])
        if words[:1] in (["worker"], ["flower"]):
            command = group.commands[words[0]]
            command.make_context(words[0], words[1:], resilient_parsing=False).close()


def test_no_secret_has_a_default(services: dict[str, dict[str, Any]]) -> None:
    used = re.findall(r"\$\{(\w+)(:?[-?+])?", FILE.read_text())
    secrets = [(name, how) for name, how in used if SECRET.search(name)]
    assert {name for name, _ in secrets} >= {
        "POSTGRES_PASSWORD",
        "REDIS_PASSWORD",
        "S3_SECRET_KEY",
        "FARM_FLOWER_PASSWORD",
    }
    assert {how for _, how in secrets} == {":?"}
    for service in services.values():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key):
                assert str(value).startswith("${"), f"{key} is written into the file"


def test_the_example_environment_names_every_secret_and_gives_none() -> None:
    required = set(re.findall(r"\$\{(\w+):\?", FILE.read_text()))
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    assert {line.partition("=")[0] for line in lines} == required
    assert all(line.endswith("=") for line in lines)


def test_redis_keeps_what_it_was_given(services: dict[str, dict[str, Any]]) -> None:
    command = services["redis"]["command"]
    flags = dict(zip(command[1::2], command[2::2], strict=True))
    assert flags["--appendonly"] == "yes"
    assert flags["--maxmemory-policy"] == "noeviction"
    assert any(volume.endswith(":/data") for volume in services["redis"]["volumes"])


def test_every_part_of_a_farm_is_there(services: dict[str, dict[str, Any]]) -> None:
    first_words = {" ".join(service["command"][:3]) for service in farm_services(services).values()}
    assert {"dispatch", "worker --queue split", "worker --queue infer", "db upgrade"} <= first_words
    assert set(services) > STORES


def test_each_card_has_a_worker_of_its_own_that_sees_one_device(services: dict[str, dict[str, Any]]) -> None:
    cards = [service for service in services.values() if "cards" in service.get("profiles", [])]
    assert len(cards) >= 2
    assert len({tuple(card["devices"]) for card in cards}) == len(cards)
    for card in cards:
        assert card["entrypoint"] == ["card-worker"] and card["environment"]["FARM_ENGINE"] == "vart"
        # XRT looks for a card's node under the name that the host's sysfs has for it
        [device] = card["devices"]
        host, _, inside = without_variables([device])[0].partition(":")
        assert host == inside
        assert card["build"]["dockerfile"] == "deploy/Dockerfile.vck5000"


def test_a_worker_on_the_cpu_has_an_engine_of_its_own(services: dict[str, dict[str, Any]]) -> None:
    assert without_variables([services["cpu"]["environment"]["FARM_ENGINE"]]) == ["onnx"]


def test_what_the_cards_image_is_built_from_is_in_its_context() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "deploy/Dockerfile.vck5000").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert names and all(f"!{name}" in ignored and (ROOT / name).exists() for name in names)


def test_nothing_starts_before_the_tables_are_there(services: dict[str, dict[str, Any]]) -> None:
    for name in ("dispatcher", "splitter", "cpu", "card-0"):
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_stores_and_flower_say_whether_they_are_well(services: dict[str, dict[str, Any]]) -> None:
    assert all("healthcheck" in services[name] for name in [*STORES, "flower"])


def test_only_flower_is_published_and_only_to_this_machine(services: dict[str, dict[str, Any]]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"flower"}
    assert all(str(port).startswith("127.0.0.1:") for port in published["flower"])


def test_a_train_worker_is_asked_for_by_name_and_reserves_its_gpu(services: dict[str, dict[str, Any]]) -> None:
    train = services["train"]
    assert train["profiles"] == ["train"]
    assert without_variables(train["command"]) == ["worker", "--queue", "train", "--device", "cuda:0"]
    [device] = train["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]
