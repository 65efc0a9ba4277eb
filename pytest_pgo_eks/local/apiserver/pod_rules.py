"""What makes a pod, or a pod template, invalid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pytest_pgo_eks.local.apiserver.metadata_rules import DNS_LABEL, SAY_LABEL
from pytest_pgo_eks.local.apiserver.problems import (
    FieldError,
    denied,
    duplicate,
    required,
    unsupported,
    wrong,
)
from pytest_pgo_eks.local.apiserver.quantity import amount
from pytest_pgo_eks.local.objects import Obj


def containers(spec: Obj, path: str, claims: Iterable[str] = ()) -> Iterator[FieldError]:
    """Check a pod's containers and volumes; ``claims`` are volumes that come from elsewhere."""
    volumes = {one.get("name") for one in spec.get("volumes") or []} | set(claims)
    seen: set[str] = set()
    for at, volume in enumerate(spec.get("volumes") or []):
        name = volume.get("name", "")
        if name and not DNS_LABEL.match(name):
            yield wrong(f"{path}.volumes[{at}].name", name, SAY_LABEL)
        if name in seen:
            yield duplicate(f"{path}.volumes[{at}].name", name)
        seen.add(name)
    names: set[str] = set()
    for group in ("initContainers", "containers"):
        for at, container in enumerate(spec.get(group) or []):
            where = f"{path}.{group}[{at}]"
            yield from _container(container, where, volumes)
            name = container.get("name", "")
            if name in names:
                yield duplicate(f"{where}.name", name)
            names.add(name)
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        yield unsupported(
            f"{path}.restartPolicy", spec.get("restartPolicy"), ("Always", "OnFailure", "Never")
        )


def _container(container: Obj, where: str, volumes: set[Any]) -> Iterator[FieldError]:
    name = container.get("name", "")
    if name and not DNS_LABEL.match(name):
        yield wrong(f"{where}.name", name, SAY_LABEL)
    if not container.get("image"):
        yield required(f"{where}.image")
    if container.get("imagePullPolicy") not in ("Always", "IfNotPresent", "Never"):
        yield unsupported(
            f"{where}.imagePullPolicy",
            container.get("imagePullPolicy"),
            ("Always", "IfNotPresent", "Never"),
        )
    for at, mount in enumerate(container.get("volumeMounts") or []):
        if mount.get("name") not in volumes:
            field = f"{where}.volumeMounts[{at}].name"
            yield FieldError("Not found", field, "", mount.get("name"))
    for at, one in enumerate(container.get("ports") or []):
        yield from port(one.get("containerPort"), f"{where}.ports[{at}].containerPort")
    resources = container.get("resources") or {}
    yield from _limits(resources, f"{where}.resources")


def _limits(resources: Obj, where: str) -> Iterator[FieldError]:
    limits = resources.get("limits") or {}
    for name, value in (resources.get("requests") or {}).items():
        if name in limits and amount(value) > amount(limits[name]):
            yield wrong(
                f"{where}.requests",
                value,
                f"must be less than or equal to {name} limit of {limits[name]}",
            )


def port(value: Any, field: str) -> Iterator[FieldError]:
    if value is None:
        yield required(field)
    elif not isinstance(value, int) or not 0 < value < 65536:
        yield wrong(field, value, "must be between 1 and 65535, inclusive")


def pod(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    if old is None:
        yield from containers(obj["spec"], "spec")
        return
    before, after = _frozen_pod(old["spec"]), _frozen_pod(obj["spec"])
    if before.get("nodeName") is None:
        after.pop("nodeName", None)
    if before != after:
        allowed = (
            "`spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
            "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
            "previously negative)"
        )
        yield denied("spec", f"pod updates may not change fields other than {allowed}")


def _frozen_pod(spec: Obj) -> Obj:
    """Return what may not change of a pod's spec."""
    free = {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"}
    found = {name: value for name, value in spec.items() if name not in free}
    for name in ("containers", "initContainers"):
        if name in found:
            found[name] = [{**one, "image": ""} for one in found[name]]
    return found
