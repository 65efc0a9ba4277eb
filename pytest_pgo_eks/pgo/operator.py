"""The operator that is installed: is it there, does it serve its resource, which one is it?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.errors import ApiProblem, Inconclusive, WaitTimeout
from pytest_pgo_eks.kube import Kube, eventually
from pytest_pgo_eks.pgo import names
from pytest_pgo_eks.pgo.trouble import explain, troubles
from pytest_pgo_eks.pgo.versions import Release, release_of
from pytest_pgo_eks.progress import Progress, silent

Object = dict[str, Any]

# kustomize labels the control plane with its own name, the Helm charts with the chart's.
_LOG_BYTES = 4096
_VERSION = re.compile(r"\bversion=\"?(\d+\.\d+[\w.-]*)")
_SELECTOR = f"{names.CONTROL_PLANE} in (postgres-operator,pgo)"


@dataclass(frozen=True)
class Operator:
    """The running operator. ``restarts`` counts its container's; ``version`` is as labelled.

    ``lease_holder`` is the identity in its leader election lease ``lease_name``, both None where it
    uses none.
    """

    namespace: str
    deployment: str
    pod: str
    pod_uid: str
    image: str
    version: str
    restarts: int
    api_versions: tuple[str, ...]
    lease_name: str | None
    lease_holder: str | None

    @property
    def stand_in(self) -> bool:
        return "stand-in" in self.image or "stand-in" in self.version

    @property
    def release(self) -> Release:
        return release_of(self.version)

    def __str__(self) -> str:
        return f"PGO {self.version} ({self.image})"


def verify(
    kube: Kube, namespace: str, *, within_s: float, progress: Progress | None = None
) -> Operator:
    """Wait until an operator is available in ``namespace`` and serves PostgresCluster.

    :raises Inconclusive: it did not become so, with the reason.
    """
    with (progress or silent()).phase("waiting for the operator") as phase:
        last: list[str] = []

        def look() -> Operator | str:
            found = _look(kube, namespace)
            last[:] = [str(found)]
            phase.say(str(found))
            return found

        try:
            found = eventually(
                look,
                accept=lambda seen: isinstance(seen, Operator),
                within_s=within_s,
                what=f"the operator in {namespace}",
                show=str,
                successes=2,
            )
        except WaitTimeout as late:
            pods = _operator_pods(kube, namespace)
            reasons = explain(kube, namespace, "pgo", troubles(pods, []))
            raise Inconclusive(
                f"no operator in namespace {namespace} within {within_s:g} s: "
                f"{'; '.join([*last, *reasons]) or late}"
            ) from late
    assert isinstance(found, Operator)
    return found


def current(kube: Kube, namespace: str) -> Operator:
    """Return the operator as it runs now.

    :raises ApiProblem: it cannot be seen, or does not run.
    """
    found = _look(kube, namespace)
    if isinstance(found, str):
        raise ApiProblem(found)
    return found


def _look(kube: Kube, namespace: str) -> Operator | str:
    """Return the operator, or a sentence about what is missing."""
    deployment = _deployment(kube, namespace)
    if deployment is None:
        return f"no Deployment of an operator in namespace {namespace}"
    name, status = deployment["metadata"]["name"], deployment.get("status") or {}
    available = any(
        one.get("type") == "Available" and one.get("status") == "True"
        for one in status.get("conditions") or []
    )
    if not available or not status.get("availableReplicas"):
        return f"Deployment {name} is not available"
    crd = kube.find("CustomResourceDefinition", names.CRD)
    if crd is None:
        return f"CustomResourceDefinition {names.CRD} is missing"
    conditions = (crd.get("status") or {}).get("conditions") or []
    if not any(one.get("type") == "Established" and one["status"] == "True" for one in conditions):
        return f"CustomResourceDefinition {names.CRD} is not established"
    pods = [one for one in _operator_pods(kube, namespace) if _runs(one)]
    if len(pods) != 1:
        return f"{len(pods)} operator pods run where one should"
    found = _operator(kube, namespace, name, pods[0], crd)
    if found.lease_name and not (found.lease_holder or "").startswith(found.pod):
        holder = found.lease_holder or "nobody"
        return f"{found.pod} does not lead yet: lease {found.lease_name} is held by {holder}"
    return found


def _operator(kube: Kube, namespace: str, name: str, pod: Object, crd: Object) -> Operator:
    container = _container(pod["spec"]["containers"])
    status: Object = next(
        (
            one
            for one in (pod.get("status") or {}).get("containerStatuses") or []
            if one["name"] == container["name"]
        ),
        {},
    )
    env = {one["name"]: one.get("value") for one in container.get("env") or []}
    lease_name = env.get("PGO_CONTROLLER_LEASE_NAME")
    lease = kube.find("Lease", lease_name, namespace) if lease_name else None
    labelled = names.labels(pod).get("app.kubernetes.io/version")
    return Operator(
        namespace=namespace,
        deployment=name,
        pod=pod["metadata"]["name"],
        pod_uid=pod["metadata"]["uid"],
        image=container["image"],
        version=_said(kube, namespace, pod, container["name"])
        or labelled
        or container["image"].rpartition(":")[2],
        restarts=int(status.get("restartCount", 0)),
        api_versions=tuple(
            one["name"] for one in crd["spec"].get("versions") or [] if one.get("served")
        ),
        lease_name=lease_name,
        lease_holder=lease["spec"].get("holderIdentity") if lease else None,
    )


def _said(kube: Kube, namespace: str, pod: Object, container: str) -> str | None:
    """Return the version that the running program writes on every line of its log.

    Labels are the installer's word: an image of another release under them goes unnoticed.
    """
    try:
        text = kube.logs(
            namespace, pod["metadata"]["name"], container=container, limit_bytes=_LOG_BYTES
        )
    except ApiProblem:
        return None
    found = _VERSION.search(text)
    return found[1] if found else None


def _deployment(kube: Kube, namespace: str) -> Object | None:
    found = kube.list("apps/v1/Deployment", namespace, labels=_SELECTOR)
    return found[0] if found else kube.find("apps/v1/Deployment", "pgo", namespace)


def _operator_pods(kube: Kube, namespace: str) -> list[Object]:
    try:
        return kube.list("Pod", namespace, labels=_SELECTOR)
    except ApiProblem:
        return []


def _runs(pod: Object) -> bool:
    status = pod.get("status") or {}
    return status.get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")


def _container(containers: list[Object]) -> Object:
    return next((one for one in containers if one["name"] == "operator"), containers[0])
