"""deploy/kubernetes: every file is listed, valid against the schemas, and its parts refer to one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    each for name in KUSTOMIZATION["resources"] for each in yaml.safe_load_all((FOLDER / name).read_text())
]
PODS = {
    each["metadata"]["name"]: each["spec"]["template"] for each in OBJECTS if each["kind"] == "StatefulSet"
}


def test_every_file_is_part_of_it() -> None:
    listed = {*KUSTOMIZATION["resources"], "kustomization.yaml"}
    listed |= {file for each in KUSTOMIZATION["configMapGenerator"] for file in each["files"]}
    assert listed == {file.name for file in FOLDER.iterdir()}


@pytest.mark.parametrize("value", OBJECTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_objects_are_valid(value: dict[str, Any]) -> None:
    if value["apiVersion"].startswith("monitoring.coreos.com/"):
        assert value["spec"]["endpoints"]  # the operator's own schema is not in Kubernetes'
        return
    kubernetes_validate.validate(value, "1.29", strict=True)


@pytest.mark.parametrize("name", PODS)
def test_pods_run_locked_and_mount_what_they_have(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    claims = next(
        each for each in OBJECTS if each["kind"] == "StatefulSet" and each["metadata"]["name"] == name
    )
    volumes = {each["name"] for each in spec["volumes"]}
    volumes |= {each["metadata"]["name"] for each in claims["spec"]["volumeClaimTemplates"]}
    mounted = set()
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        own = container["securityContext"]
        assert own["readOnlyRootFilesystem"]
        assert not own["allowPrivilegeEscalation"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        mounted |= {each["name"] for each in container["volumeMounts"]}
    assert mounted == volumes


def test_services_policies_and_budgets_select_pods_that_exist() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in PODS.items()}
    for each in OBJECTS:
        selector = each.get("spec", {}).get("podSelector") or each.get("spec", {}).get("selector")
        if each["kind"] in ("ServiceMonitor", "Namespace") or selector is None:
            continue
        wanted = selector.get("matchLabels", selector)
        assert any(wanted.items() <= found.items() for found in labels.values()), each["metadata"]["name"]


def test_the_services_ports_are_the_containers() -> None:
    for each in OBJECTS:
        if each["kind"] == "Service":
            container = PODS[each["metadata"]["name"]]["spec"]["containers"][0]
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert {port["targetPort"]: port["port"] for port in each["spec"]["ports"]} == ports


@pytest.mark.parametrize("file", ["coordinator.yaml", "worker.yaml"])
def test_no_pod_takes_a_clusters_links_for_settings(file: str) -> None:
    values = yaml.safe_load_all((FOLDER / file).read_text())
    pods = [value["spec"]["template"]["spec"] for value in values if value["kind"] == "StatefulSet"]
    assert pods
    assert all(pod["enableServiceLinks"] is False for pod in pods)
