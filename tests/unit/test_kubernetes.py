"""deploy/kubernetes against Kubernetes' and KEDA's schemas, and against the farm it describes."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml
from cloudcoil.models.keda import v1alpha1 as keda

from farm.cli.app import app
from farm.queue import SPLIT_QUEUE
from farm.settings import Settings
from workers.app import node_name

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
VERSION = "1.34"
CARD = "amd.com/"
Document = dict[str, Any]


def documents() -> list[Document]:
    names = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    return [document for name in names for document in yaml.safe_load_all((FOLDER / name).read_text())]


def of_kind(*kinds: str) -> dict[str, Document]:
    return {each["metadata"]["name"]: each for each in documents() if each["kind"] in kinds}


def pods() -> dict[str, Document]:
    return {name: each["spec"]["template"]["spec"] for name, each in of_kind("Deployment", "Job").items()}


def containers() -> list[tuple[str, Document]]:
    return [
        (name, each) for name, pod in pods().items() for each in [*pod.get("initContainers", []), *pod["containers"]]
    ]


def check_keda(document: Document) -> None:
    """Raises ValueError for a document that KEDA's schema does not know; it drops unknown fields, which are an error here."""
    parsed = getattr(keda, document["kind"]).model_validate(document)
    if parsed.model_dump(by_alias=True, exclude_unset=True, mode="json") != document:
        raise ValueError(f"{document['metadata']['name']} has fields that KEDA does not know")


def name_of(document: Document) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_document_follows_its_schema(document: Document) -> None:
    if document["apiVersion"].startswith("keda.sh/"):
        check_keda(document)
    else:
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_the_schema_checks_can_fail() -> None:
    deployment = copy.deepcopy(of_kind("Deployment")["card-worker"])
    deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        kubernetes_validate.validate(deployment, VERSION, strict=True)
    scaled = copy.deepcopy(of_kind("ScaledObject")["card-worker"])
    scaled["spec"]["pollingIntervall"] = 3
    with pytest.raises(ValueError, match="does not know"):
        check_keda(scaled)


def test_every_file_is_applied() -> None:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert sorted(["kustomization.yaml", *listed]) == sorted(path.name for path in FOLDER.iterdir())


def test_every_setting_exists_and_secrets_are_only_referred_to() -> None:
    known = {f"FARM_{name.upper()}" for name in Settings.model_fields}
    plain = dict(of_kind("ConfigMap")["farm-settings"]["data"])
    for _, container in containers():
        plain |= {each["name"]: each.get("value") for each in container.get("env", [])}
    assert plain.keys() <= known
    assert not [name for name in plain if re.search("PASSWORD|SECRET|ACCESS_KEY|DATABASE_URL|REDIS_URL", name)]
    assert not of_kind("Secret")
    for _, container in containers():
        assert {next(iter(each)) for each in container["envFrom"]} == {"configMapRef", "secretRef"}
    told = (FOLDER / "kustomization.yaml").read_text()
    for name in (
        "FARM_DATABASE_URL",
        "FARM_REDIS_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "FARM_FLOWER_PASSWORD",
    ):
        assert f"--from-literal={name}=" in told


def test_every_command_is_one_that_the_farm_knows() -> None:
    group = typer.main.get_command(app)
    asked = [each["args"] for _, each in containers() if "args" in each]
    assert sorted(words[0] for words in asked) == ["db", "dispatch", "flower", "worker"]
    for words in asked:
        command: Any = group
        rest = list(words)
        while hasattr(command, "commands"):
            command = command.commands[rest.pop(0)]
        command.make_context("farm", rest, resilient_parsing=False).close()


def test_a_card_pod_takes_one_card_and_no_other_pod_takes_any() -> None:
    taken = {
        name: [amount for resource, amount in each["resources"]["limits"].items() if resource.startswith(CARD)]
        for name, each in containers()
    }
    assert taken.pop("card-worker") == [1]
    assert not any(taken.values())
    deployment = of_kind("Deployment")["card-worker"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["card-worker"]
    assert {"name": "FARM_ENGINE", "value": "vart"} in container["env"]


def test_nothing_runs_before_the_tables_are_there_nor_as_root_nor_unwatched() -> None:
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        if name == "migrate":
            continue
        assert "farm db status" in pod["initContainers"][0]["command"][-1]
        assert all("livenessProbe" in each for each in pod["containers"])
    for _, container in containers():
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert "memory" in container["resources"]["limits"]


def test_selectors_and_ports_meet() -> None:
    labels = {name: each["spec"]["template"]["metadata"]["labels"] for name, each in of_kind("Deployment").items()}
    for name, each in of_kind("Deployment").items():
        assert each["spec"]["selector"]["matchLabels"] == labels[name]
    for name, each in of_kind("PodDisruptionBudget").items():
        assert each["spec"]["selector"]["matchLabels"] == labels[name]
    for name, each in of_kind("Service").items():
        assert each["spec"]["selector"] == labels[name]
        ports = {port["name"] for port in pods()[name]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports
    for _, container in containers():
        probes = [each for key, each in container.items() if key.endswith("Probe") and "httpGet" in each]
        assert {each["httpGet"]["port"] for each in probes} <= {port["name"] for port in container.get("ports", [])}


def test_what_is_scaled_says_no_number_of_its_own() -> None:
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in of_kind("ScaledObject").values()}
    assert scaled == {"splitter", "card-worker"}
    deployments = of_kind("Deployment")
    assert not [name for name in scaled if "replicas" in deployments[name]["spec"]]
    authentication = of_kind("TriggerAuthentication")["farm-database"]["spec"]["secretTargetRef"]
    assert authentication == [{"parameter": "connection", "name": "farm-secrets", "key": "FARM_DATABASE_URL"}]


def test_the_splitters_probe_asks_for_the_name_that_its_worker_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getpid", lambda: 1)
    probe = pods()["splitter"]["containers"][0]["livenessProbe"]["exec"]["command"][-1]
    assert f'"{node_name(SPLIT_QUEUE, "")}@$(hostname)"' in probe
