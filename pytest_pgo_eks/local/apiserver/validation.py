"""What makes an object invalid: missing, contradicting and immutable fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from pytest_pgo_eks.local.apiserver import metadata_rules, pod_rules
from pytest_pgo_eks.local.apiserver.problems import (
    FieldError,
    denied,
    duplicate,
    required,
    unsupported,
    wrong,
)
from pytest_pgo_eks.local.apiserver.quantity import amount
from pytest_pgo_eks.local.apiserver.resources import Resource
from pytest_pgo_eks.local.apiserver.schema import Type
from pytest_pgo_eks.local.objects import Obj, matches

_CONFIG_KEY = re.compile(r"^[-._a-zA-Z0-9]+$")
_IMMUTABLE = "field is immutable"
# Types whose required fields validation really asks for; elsewhere zero values are accepted.
_STRICT = frozenset(
    {
        "Container",
        "PodSpec",
        "EnvVar",
        "VolumeMount",
        "Volume",
        "ConfigMapKeySelector",
        "SecretKeySelector",
        "ObjectFieldSelector",
        "KeyToPath",
        "HTTPGetAction",
        "TCPSocketAction",
        "ServicePort",
        "RoleRef",
        "RbacV1Subject",
        "PolicyRule",
        "DeploymentSpec",
        "StatefulSetSpec",
        "ReplicaSetSpec",
        "CronJobSpec",
        "PersistentVolumeClaimVolumeSource",
        "StorageClass",
        "HostPathVolumeSource",
        "EndpointAddress",
        "CoreV1EndpointPort",
    }
)
_LENIENT = {("StatefulSetSpec", "serviceName"), ("ConfigMapKeySelector", "name")}


def missing(value: Any, kind: Type, path: str = "") -> Iterator[FieldError]:
    """Yield every required field that a decoded object lacks (status is not looked at)."""
    if kind.form == "struct":
        if kind.name in _STRICT:
            for name in kind.required:
                if value.get(name) in (None, "", [], {}) and (kind.name, name) not in _LENIENT:
                    yield required(f"{path}.{name}".lstrip("."))
        for name, inner in value.items():
            if name in kind.fields and not (name == "status" and not path):
                yield from missing(inner, kind.fields[name], f"{path}.{name}")
    elif kind.form == "list" and kind.item.form == "struct":
        for at, inner in enumerate(value):
            yield from missing(inner, kind.item, f"{path}[{at}]")


def _template(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    spec = obj["spec"]
    template = spec.get("template") or {}
    claims = [one["metadata"].get("name", "") for one in spec.get("volumeClaimTemplates") or []]
    yield from pod_rules.containers(template.get("spec") or {}, "spec.template.spec", claims)
    selector = spec.get("selector")
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not selector:
        yield required("spec.selector")
    elif not matches(selector, labels):
        field = "spec.template.metadata.labels"
        yield wrong(field, labels, "`selector` does not match template `labels`")
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy != "Always":
        yield unsupported("spec.template.spec.restartPolicy", policy, ("Always",))
    if (spec.get("replicas") or 0) < 0:
        yield wrong("spec.replicas", spec["replicas"], "must be greater than or equal to 0")
    if old is not None and old["spec"].get("selector") != selector:
        yield wrong("spec.selector", selector, _IMMUTABLE)


def _stateful_set(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    yield from _template(obj, None)
    if old is None:
        return
    free = {
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    }
    before = {name: value for name, value in old["spec"].items() if name not in free}
    after = {name: value for name, value in obj["spec"].items() if name not in free}
    if before != after:
        yield denied(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
            "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
            "'minReadySeconds' are forbidden",
        )


def _job(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    spec = obj["spec"]
    template = (spec.get("template") or {}).get("spec") or {}
    yield from pod_rules.containers(template, "spec.template.spec")
    if template.get("restartPolicy") not in ("OnFailure", "Never"):
        field = "spec.template.spec.restartPolicy"
        yield (
            FieldError("Required value", field, 'valid values: "OnFailure", "Never"')
            if template.get("restartPolicy") in (None, "", "Always")
            else unsupported(field, template["restartPolicy"], ("OnFailure", "Never"))
        )
    if old is None:
        return
    for name in ("selector", "template", "completionMode", "podFailurePolicy"):
        if old["spec"].get(name) != spec.get(name):
            if name == "template" and old["spec"].get("suspend"):
                continue
            yield wrong(f"spec.{name}", spec.get(name), _IMMUTABLE)
    if spec.get("completionMode") != "Indexed" and old["spec"].get("completions") != spec.get(
        "completions"
    ):
        yield wrong("spec.completions", spec.get("completions"), _IMMUTABLE)


def _cron_job(obj: Obj, _old: Obj | None) -> Iterator[FieldError]:
    schedule = obj["spec"].get("schedule") or ""
    if schedule and not schedule.startswith("@") and len(schedule.split()) != 5:
        what = f"expected exactly 5 fields, found {len(schedule.split())}: {schedule.split()}"
        yield wrong("spec.schedule", schedule, what)
    template = ((obj["spec"].get("jobTemplate") or {}).get("spec") or {}).get("template") or {}
    yield from pod_rules.containers(
        template.get("spec") or {}, "spec.jobTemplate.spec.template.spec"
    )


def _service(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    spec = obj["spec"]
    kinds = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec.get("type") not in kinds:
        yield unsupported("spec.type", spec.get("type"), kinds)
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield required("spec.ports")
    seen: set[Any] = set()
    for at, port in enumerate(ports):
        where = f"spec.ports[{at}]"
        yield from pod_rules.port(port.get("port"), f"{where}.port")
        if len(ports) > 1 and not port.get("name"):
            yield required(f"{where}.name")
        if port.get("name") and port["name"] in seen:
            yield duplicate(f"{where}.name", port["name"])
        seen.add(port.get("name"))
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            yield unsupported(f"{where}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))
    before = (old or {}).get("spec") or {}
    had, has = before.get("clusterIP"), spec.get("clusterIP")
    if had and spec.get("type") != "ExternalName" and had != has:
        yield wrong("spec.clusterIPs[0]", [has], "may not change once set")


def _claim(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    spec = obj["spec"]
    wanted = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    modes = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
    if not spec.get("accessModes"):
        yield required("spec.accessModes", "at least 1 access mode is required")
    for at, mode in enumerate(spec.get("accessModes") or []):
        if mode not in modes:
            yield unsupported(f"spec.accessModes[{at}]", mode, modes)
    if wanted is None:
        yield required("spec.resources[storage]")
    if old is None:
        return
    before = {key: value for key, value in old["spec"].items() if key != "resources"}
    after = {key: value for key, value in spec.items() if key != "resources"}
    if before.get("volumeName") is None:
        after.pop("volumeName", None)
    if before.get("storageClassName") is None:
        after.pop("storageClassName", None)
    if before != after:
        yield denied(
            "spec",
            "spec is immutable after creation except resources.requests and "
            "volumeAttributesClassName for bound claims",
        )
    had = ((old["spec"].get("resources") or {}).get("requests") or {}).get("storage")
    holds = ((old.get("status") or {}).get("capacity") or {}).get("storage", "0")
    # An expansion that failed may be taken back down to what the volume has, never below.
    if wanted and had and amount(wanted) < amount(had) and amount(wanted) <= amount(holds):
        yield denied(
            "spec.resources.requests.storage", "field can not be less than status.capacity"
        )


def _config(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    for name in obj.get("data") or {}:
        if not _CONFIG_KEY.match(name):
            yield wrong(
                f"data[{name}]",
                name,
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. "
                "'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is "
                "'[-._a-zA-Z0-9]+')",
            )
    if old is None:
        return
    if obj.get("kind") == "Secret" and old.get("type") != obj.get("type"):
        yield wrong("type", obj.get("type"), _IMMUTABLE)
    if old.get("immutable"):
        if not obj.get("immutable"):
            yield denied("immutable", "field is immutable when `immutable` is set")
        if old.get("data") != obj.get("data"):
            yield denied("data", "field is immutable when `immutable` is set")


def _binding(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    if not obj.get("roleRef"):
        yield required("roleRef")
    elif old is not None and old["roleRef"] != obj["roleRef"]:
        yield wrong("roleRef", obj["roleRef"], "cannot change roleRef")


def _budget(obj: Obj, _old: Obj | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    if "minAvailable" in spec and "maxUnavailable" in spec:
        yield wrong("spec", spec, "minAvailable and maxUnavailable cannot be both set")


def _class(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    if old is None:
        return
    for name in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
        if old.get(name) != obj.get(name):
            yield denied(name, f"updates to {name} are forbidden.")


def _volume(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    spec = obj["spec"]
    if not (spec.get("capacity") or {}).get("storage"):
        yield required("spec.capacity")
    if not spec.get("accessModes"):
        yield required("spec.accessModes")
    if old is not None and old["spec"].get("hostPath") != spec.get("hostPath"):
        what = "spec.persistentvolumesource is immutable after creation"
        yield denied("spec.persistentvolumesource", what)


_RBAC = "rbac.authorization.k8s.io"
_CHECKS: dict[tuple[str, str], Callable[[Obj, Obj | None], Iterator[FieldError]]] = {
    ("", "pods"): pod_rules.pod,
    ("", "services"): _service,
    ("", "persistentvolumeclaims"): _claim,
    ("", "persistentvolumes"): _volume,
    ("", "configmaps"): _config,
    ("", "secrets"): _config,
    ("apps", "deployments"): _template,
    ("apps", "replicasets"): _template,
    ("apps", "statefulsets"): _stateful_set,
    ("batch", "jobs"): _job,
    ("batch", "cronjobs"): _cron_job,
    ("policy", "poddisruptionbudgets"): _budget,
    ("storage.k8s.io", "storageclasses"): _class,
    (_RBAC, "clusterrolebindings"): _binding,
    (_RBAC, "rolebindings"): _binding,
}


def _without(obj: Obj, names: set[str]) -> Obj:
    return {name: value for name, value in obj.items() if name not in names}


def errors(resource: Resource, obj: Obj, old: Obj | None) -> list[FieldError]:
    """Return everything wrong with a defaulted object; ``old`` is what an update replaces."""
    found = list(metadata_rules.errors(resource, obj["metadata"]))
    apart = {"metadata", "status"}
    same = old is not None and _without(old, apart) == _without(obj, apart)
    if not resource.custom and not same:
        found += missing(obj, resource.type)
        check = _CHECKS.get(resource.storage)
        if check is not None:
            found += check(obj, old)
    unique: dict[str, FieldError] = {str(error): error for error in found}
    return list(unique.values())
