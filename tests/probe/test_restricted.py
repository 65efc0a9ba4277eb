"""The probe's pod as data: admitted under "restricted", on any node, and it cannot write elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from restricted import RULES, broken

from pytest_pgo_eks.clusters import enforcement
from pytest_pgo_eks.clusters.base import ClusterHandle
from pytest_pgo_eks.errors import ApiProblem
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.kube.hardening import SCRATCH
from pytest_pgo_eks.probe import pod

Object = dict[str, Any]


def spec() -> Object:
    made: Object = pod.manifests("ns", image="mirror.example/python:3.13")[-1]["spec"]
    return copy.deepcopy(made)


def test_the_pod_is_admitted_under_the_restricted_level() -> None:
    assert not broken(spec())


def test_so_are_the_pods_that_prove_network_policies() -> None:
    made = enforcement._pod("ns", "listener", "pass", "image")
    assert not broken(made["spec"])


def _container(change: Callable[[Object], object]) -> Callable[[Object], object]:
    return lambda found: change(found["containers"][0]["securityContext"])


SPOILED: dict[str, Callable[[Object], object]] = {
    "host namespaces": lambda found: found.update(hostNetwork=True),
    "privileged containers": _container(lambda own: own.update(privileged=True)),
    "host ports": lambda found: found["containers"][0].update(ports=[{"hostPort": 1}]),
    "proc mount": _container(lambda own: own.update(procMount="Unmasked")),
    "volume types": lambda found: found["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    "privilege escalation": _container(lambda own: own.pop("allowPrivilegeEscalation")),
    "running as non-root": _container(lambda own: own.update(runAsNonRoot=False)),
    "running as non-root user": lambda found: found["securityContext"].update(runAsUser=0),
    "seccomp": _container(lambda own: own.update(seccompProfile={"type": "Unconfined"})),
    "capabilities": _container(lambda own: own.update(capabilities={"add": ["NET_ADMIN"]})),
}


def test_every_rule_is_seen_broken() -> None:
    assert SPOILED.keys() == RULES.keys()


@pytest.mark.parametrize("rule", RULES)
def test_a_pod_that_breaks_a_rule_is_found(rule: str) -> None:
    found = spec()
    SPOILED[rule](found)
    assert broken(found) == [rule]


def test_the_root_file_system_is_read_only_and_the_agent_has_a_place() -> None:
    (container,) = spec()["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    (mount,) = container["volumeMounts"]
    assert pod.HOME.startswith(f"{mount['mountPath']}/")
    assert mount["mountPath"] == SCRATCH
    assert spec()["volumes"] == [{"name": mount["name"], "emptyDir": {}}]


def test_no_architecture_is_asked_for_and_no_image_but_the_one_named() -> None:
    found = spec()
    assert found["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert [one["image"] for one in found["containers"]] == ["mirror.example/python:3.13"]
    assert "initContainers" not in found


def test_autoscalers_are_asked_to_let_it_be() -> None:
    notes = pod.manifests("ns")[-1]["metadata"]["annotations"]
    assert notes["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert notes["karpenter.sh/do-not-disrupt"] == "true"


@pytest.mark.real_apiserver
def test_a_real_server_that_enforces_the_level_agrees(real_apiserver: ClusterHandle) -> None:
    namespace = "probe-restricted"
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    meta = {"name": namespace, "labels": enforced}
    with Kube(real_apiserver.kubeconfig) as kube:
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        try:
            *others, made = pod.manifests(namespace)
            for manifest in others:
                kube.apply(manifest)
            path = f"/api/v1/namespaces/{namespace}/pods?dryRun=All"
            assert kube.raw("POST", path, made)["metadata"]["name"] == pod.DEFAULT_NAME
            kube.raw("POST", path, enforcement._pod(namespace, "listener", "pass", "image"))
            made["spec"]["containers"][0]["securityContext"].pop("capabilities")
            with pytest.raises(ApiProblem, match="violates PodSecurity"):
                kube.raw("POST", path, made)
        finally:
            kube.delete("Namespace", namespace)
