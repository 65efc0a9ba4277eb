"""Variables, references and command lines of a container."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from pytest_pgo_eks.local.kubelet.environment import (
    ConfigProblem,
    Sources,
    command,
    environment,
    expand,
    service_variables,
)
from pytest_pgo_eks.local.kubelet.references import Place, Unresolvable, field, quantity, resource

PLACE = Place("node-1", "10.250.0.11", "10.244.1.7", {"cpu": "2", "memory": "4Gi"})
POD: dict[str, Any] = {
    "metadata": {
        "name": "hippo-0",
        "namespace": "ns",
        "uid": "u",
        "labels": {"b": "2", "a": 'x"y'},
        "annotations": {"status": "{}"},
    },
    "spec": {
        "containers": [
            {"name": "database", "resources": {"limits": {"cpu": "1500m"}, "requests": {}}}
        ]
    },
}


def sources(**objects: dict[str, Any]) -> Sources:
    def find(kind: str) -> Any:
        return lambda name: objects.get(f"{kind}_{name}")

    return Sources(find("secret"), find("map"), {"KUBERNETES_SERVICE_HOST": "10.96.0.1"})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("$(A)", "1"),
        ("$(A)$(B)", "1$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(", "$("),
        ("$(PATRONI_NAME).hippo-pods:5432", "$(PATRONI_NAME).hippo-pods:5432"),
    ],
)
def test_expansion(text: str, wanted: str) -> None:
    assert expand(text, {"A": "1"}) == wanted


def test_variables_refer_to_earlier_ones_and_to_services() -> None:
    container = {
        "name": "database",
        "env": [
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "ADDRESS", "value": "$(NAME).hippo-pods:5432"},
            {"name": "LATER", "value": "$(LATEST)"},
            {"name": "LATEST", "value": "1"},
            {"name": "API", "value": "$(KUBERNETES_SERVICE_HOST)"},
        ],
    }
    found = environment(POD, container, sources(), PLACE, {"PATH": "/bin"})
    assert found["ADDRESS"] == "hippo-0.hippo-pods:5432"
    assert found["LATER"] == "$(LATEST)"
    assert found["API"] == "10.96.0.1"
    assert found["PATH"] == "/bin"


def test_env_wins_over_env_from_and_env_from_over_the_image() -> None:
    some = {"kind": "ConfigMap", "data": {"PATH": "/map", "X": "map"}}
    container = {
        "name": "database",
        "envFrom": [{"configMapRef": {"name": "m"}}],
        "env": [{"name": "X", "value": "own"}],
    }
    found = environment(POD, container, sources(map_m=some), PLACE, {"PATH": "/bin"})
    assert (found["PATH"], found["X"]) == ("/map", "own")


def test_missing_references_hold_back_unless_optional() -> None:
    def one(**reference: Any) -> dict[str, Any]:
        return {"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": reference}}]}

    there = {"kind": "Secret", "data": {"k": base64.b64encode(b"v").decode()}}
    found = environment(POD, one(name="s", key="k"), sources(secret_s=there), PLACE, {})
    assert found["A"] == "v"
    with pytest.raises(ConfigProblem, match='secret "s" not found'):
        environment(POD, one(name="s", key="k"), sources(), PLACE, {})
    with pytest.raises(ConfigProblem, match="couldn't find key x in Secret ns/s"):
        environment(POD, one(name="s", key="x"), sources(secret_s=there), PLACE, {})
    optional = one(name="s", key="x", optional=True)
    assert "A" not in environment(POD, optional, sources(secret_s=there), PLACE, {})
    assert "A" not in environment(POD, optional, sources(), PLACE, {})


def test_command_and_args() -> None:
    env = {"A": "1"}
    assert command({"command": ["a", "$(A)"], "args": ["b"]}, env, ["x"]) == ["a", "1", "b"]
    assert command({}, env, ["x", "y"]) == ["x", "y"]
    assert command({"args": ["b", "$(A)"]}, env, ["x", "y"]) == ["b", "1"]


def test_fields() -> None:
    assert field(POD, "status.podIP", PLACE) == "10.244.1.7"
    assert field(POD, "spec.serviceAccountName", PLACE) == "default"
    assert field(POD, "metadata.labels", PLACE) == 'a="x\\"y"\nb="2"'
    assert field(POD, "metadata.labels['b']", PLACE) == "2"
    assert field(POD, "metadata.annotations['none']", PLACE) == ""
    with pytest.raises(Unresolvable, match=r"status\.phase"):
        field(POD, "status.phase", PLACE)


def test_resources_in_units_of_their_divisor_rounded_up() -> None:
    assert resource(POD, "database", {"resource": "limits.cpu"}, PLACE) == "2"
    assert resource(POD, "database", {"resource": "limits.cpu", "divisor": "1m"}, PLACE) == "1500"
    # No limit: what the node can give. No request: nothing.
    memory = {"resource": "limits.memory", "divisor": "1Mi"}
    assert resource(POD, "database", memory, PLACE) == "4096"
    assert resource(POD, "database", {"resource": "requests.memory"}, PLACE) == "0"
    with pytest.raises(Unresolvable):
        resource(POD, "nobody", {"resource": "limits.cpu"}, PLACE)


def test_quantities() -> None:
    assert quantity("16Mi") == 16 * 2**20
    assert quantity("1e3") == 1000
    assert quantity("250m") * 4 == 1
    with pytest.raises(Unresolvable):
        quantity("many")


def test_service_variables() -> None:
    api = {
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]},
    }
    headless = {
        "metadata": {"name": "hippo-pods", "namespace": "ns"},
        "spec": {"clusterIP": "None", "ports": []},
    }
    own = {
        "metadata": {"name": "hippo-ha", "namespace": "ns"},
        "spec": {"clusterIP": "10.96.7.7", "ports": [{"name": "postgres", "port": 5432}]},
    }
    assert service_variables([api, own], own_namespace=False) == {
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_SERVICE_PORT_HTTPS": "443",
        "KUBERNETES_PORT": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP_PROTO": "tcp",
        "KUBERNETES_PORT_443_TCP_PORT": "443",
        "KUBERNETES_PORT_443_TCP_ADDR": "10.96.0.1",
    }
    found = service_variables([headless, own], own_namespace=True)
    assert found["HIPPO_HA_SERVICE_PORT_POSTGRES"] == "5432"
    assert not any(name.startswith("HIPPO_PODS") for name in found)
