"""The namespace of a run in a cluster that others use: taken, marked, and left as it was found."""

from __future__ import annotations

import contextlib
import getpass
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_pgo_eks.errors import ApiProblem, ClusterProblem, NotFound, UsageProblem, WaitTimeout
from pytest_pgo_eks.kube import Kube, eventually
from pytest_pgo_eks.progress import Progress

Object = dict[str, Any]

RUN = "pytest-pgo-eks/run"
_BY = "pytest-pgo-eks/by"
_CLUSTER = "PostgresCluster"
# What a run and the operator's answer to it create, in the order in which it is taken away.
_KINDS = (
    _CLUSTER,
    "Pod",
    "apps/v1/StatefulSet",
    "apps/v1/Deployment",
    "batch/v1/CronJob",
    "batch/v1/Job",
    "Service",
    "Endpoints",
    "Secret",
    "ConfigMap",
    "PersistentVolumeClaim",
    "policy/v1/PodDisruptionBudget",
    "NetworkPolicy",
    "RoleBinding",
    "Role",
    "ServiceAccount",
)
# Ours to delete by label where the namespace stays; everything else goes with the PostgresCluster.
_OURS = ("Pod", "NetworkPolicy", "RoleBinding", "Role", "ServiceAccount")
# Kubernetes makes these in every namespace, and makes them again.
_BORN = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}


@dataclass(frozen=True)
class Lease:
    """What is on disk before anything is created: enough to find and remove it all.

    ``made`` says whether the namespace is ours; ``before`` lists what was in it otherwise.
    """

    run: str
    kubeconfig: str
    context: str
    namespace: str
    made: bool
    before: tuple[str, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        return {"app.kubernetes.io/managed-by": "pytest-pgo-eks", RUN: self.run}

    def write(self, folder: Path) -> None:
        """Write it whole, so that a reader finds all of it or nothing."""
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / "lease.tmp"
        draft.write_text(json.dumps(asdict(self), indent=1), "utf-8")
        draft.replace(folder / "lease.json")

    @classmethod
    def read(cls, folder: Path) -> Lease:
        """Read what a run has left.

        :raises ClusterProblem: there is nothing.
        """
        try:
            found = json.loads((folder / "lease.json").read_text("utf-8"))
            return cls(**{**found, "before": tuple(found["before"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ClusterProblem(f"{folder}: nothing says what was created: {error}") from None


def refuse_taken(kube: Kube, namespace: str, cluster: str | None) -> bool:
    """Return whether the namespace exists; refuse one that cannot be used.

    ``cluster`` is the name of the PostgresCluster that is to be made there.

    :raises UsageProblem: it is going away, somebody's run is in it, or such a cluster exists.
    """
    try:
        found = kube.find("Namespace", namespace)
    except ApiProblem as error:
        if error.status != 403:
            raise
        # Namespaces cannot be looked at: the rights that are asked for next will say so.
        return True
    if found is None:
        return False
    if found["metadata"].get("deletionTimestamp"):
        told = (found.get("status") or {}).get("conditions") or ()
        why = "; ".join(one.get("message", "") for one in told if one.get("status") == "True")
        raise UsageProblem(
            f"namespace {namespace} is being deleted{f' ({why})' if why else ''}; wait until it is "
            "gone, or name another with --pgo-namespace"
        )
    labels = found["metadata"].get("labels") or {}
    if RUN in labels:
        by = (found["metadata"].get("annotations") or {}).get(_BY, "somebody")
        raise UsageProblem(
            f"namespace {namespace} holds run {labels[RUN]} of {by}; use it with "
            f"--pgo-reuse={namespace}, remove it with kubectl delete namespace {namespace}, or name "
            "another with --pgo-namespace"
        )
    if cluster and kube.find(_CLUSTER, cluster, namespace) is not None:
        raise UsageProblem(
            f"namespace {namespace} has a PostgresCluster {cluster} that is not ours; name another "
            f"namespace with --pgo-namespace, or judge that one with --pgo-adopt={namespace}/{cluster}"
        )
    return True


def take(kube: Kube, lease: Lease) -> None:
    """Make the namespace of a lease that has been written, if it is to be made."""
    if not lease.made:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with contextlib.suppress(KeyError, OSError):
        now = f"{getpass.getuser()} on {platform.node()} at {now}"
    kube.create(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": lease.namespace,
                "labels": lease.labels,
                "annotations": {_BY: now},
            },
        }
    )


def inventory(kube: Kube, namespace: str) -> tuple[str, ...]:
    """List everything in a namespace that a run could have made, as ``Kind name``, sorted."""
    found = set()
    for kind in _KINDS:
        with contextlib.suppress(NotFound):
            found |= {
                (kind.rpartition("/")[2], _lasting_name(one)) for one in kube.list(kind, namespace)
            }
    return tuple(sorted(f"{kind} {name}" for kind, name in found - _BORN))


def _lasting_name(one: Mapping[str, Any]) -> str:
    """Return a name that survives: a drained node's Deployments have other pods than before."""
    meta = one["metadata"]
    owners = meta.get("ownerReferences") or ()
    replaced = any(owner.get("kind") == "ReplicaSet" for owner in owners)
    return str((meta.get("generateName") if replaced else None) or meta["name"])


def leave(kube: Kube, lease: Lease, progress: Progress, *, within_s: float) -> None:
    """Take away everything that the run made, and prove it.

    :raises ClusterProblem: something is left; it says what.
    """
    found = kube.find("Namespace", lease.namespace)
    if found is None:
        return
    if lease.made and (found["metadata"].get("labels") or {}).get(RUN) != lease.run:
        raise ClusterProblem(f"namespace {lease.namespace} belongs to another run by now")
    with progress.phase(f"removing what is in namespace {lease.namespace}", expected_s=10) as phase:
        _end_clusters(kube, lease, within_s)
        if lease.made:
            with contextlib.suppress(NotFound):
                kube.delete("Namespace", lease.namespace)
            _gone(lambda: _namespace_left(kube, lease.namespace), lease, within_s)
            phase.say("namespace deleted")
        else:
            _delete_ours(kube, lease)
            _gone(lambda: _added(kube, lease), lease, within_s)
        _gone(lambda: _volumes(kube, lease.namespace), lease, within_s)


def _end_clusters(kube: Kube, lease: Lease, within_s: float) -> None:
    """Let the operator end what it runs: in a namespace that just goes away it could not any more."""
    labels = None if lease.made else {RUN: lease.run}

    def left() -> list[str]:
        try:
            return _names(kube.list(_CLUSTER, lease.namespace, labels=labels))
        except NotFound:
            return []

    for name in left():
        with contextlib.suppress(NotFound):
            kube.delete(_CLUSTER, name, lease.namespace)
    try:
        _wait(lambda: [f"{_CLUSTER} {name}" for name in left()], within_s)
    except WaitTimeout as late:
        raise ClusterProblem(
            f"{late.last_seen} in {lease.namespace} is not deleted within {within_s:g} s: its finalizer "
            "waits for the operator; start it again, or remove the finalizer by hand"
        ) from None


def _delete_ours(kube: Kube, lease: Lease) -> None:
    for kind in _OURS:
        for name in _names(kube.list(kind, lease.namespace, labels={RUN: lease.run})):
            with contextlib.suppress(NotFound):
                kube.delete(kind, name, lease.namespace, grace_s=0 if kind == "Pod" else None)


def _added(kube: Kube, lease: Lease) -> list[str]:
    return sorted(set(inventory(kube, lease.namespace)) - set(lease.before))


def _namespace_left(kube: Kube, namespace: str) -> list[str]:
    found = kube.find("Namespace", namespace)
    if found is None:
        return []
    told = (found.get("status") or {}).get("conditions") or ()
    return [f"namespace {namespace}"] + [one["message"] for one in told if one["status"] == "True"]


def _volumes(kube: Kube, namespace: str) -> list[str]:
    """Return the volumes that were claimed there; a class that retains them keeps them for ever."""
    try:
        volumes = kube.list("PersistentVolume")
    except ApiProblem:
        return []
    return [
        f"PersistentVolume {one['metadata']['name']} "
        f"({one['spec'].get('persistentVolumeReclaimPolicy')})"
        for one in volumes
        if (one["spec"].get("claimRef") or {}).get("namespace") == namespace
    ]


def _gone(left: Any, lease: Lease, within_s: float) -> None:
    try:
        _wait(left, within_s)
    except WaitTimeout as late:
        raise ClusterProblem(
            f"left behind in {lease.namespace} after {within_s:g} s: {late.last_seen}"
        ) from None


def _wait(left: Any, within_s: float) -> None:
    eventually(
        left,
        accept=lambda names: not names,
        within_s=within_s,
        what="everything to be gone",
        show=", ".join,
        successes=1,
    )


def _names(objects: Iterable[Mapping[str, Any]]) -> list[str]:
    return [str(one["metadata"]["name"]) for one in objects]
