"""What Kubernetes holds for the cluster under test: pods, volumes, Services, Secrets, budgets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pytest_pgo_eks.errors import Inconclusive, Violation
from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.pgo import Operator, PostgresCluster, names
from pytest_pgo_eks.pgo.observation import Observation
from pytest_pgo_eks.scenario.targets import NEEDED_KEYS

Object = dict[str, Any]


def demand_operator_available(kube: Kube, operator: Operator) -> None:
    """Demand that the operator's Deployment is available as Kubernetes counts."""
    found = kube.get("apps/v1/Deployment", operator.deployment, operator.namespace)
    status = found.get("status") or {}
    wanted = found["spec"].get("replicas", 1)
    if not wanted or status.get("availableReplicas", 0) < wanted:
        raise Violation(
            f"Deployment {operator.deployment} has {status.get('availableReplicas', 0)} of {wanted} "
            f"replicas available: {status.get('conditions')}"
        )


def demand_resource_served(kube: Kube, manifest: Object) -> None:
    """Demand that the API serves the version of PostgresCluster that the manifest is written in."""
    definition = kube.get("CustomResourceDefinition", names.CRD)
    version = manifest["apiVersion"].partition("/")[2]
    served = [one["name"] for one in definition["spec"]["versions"] if one["served"]]
    conditions = {c["type"]: c["status"] for c in definition["status"].get("conditions") or []}
    if version not in served or conditions.get("Established") != "True":
        raise Violation(
            f"PostgresCluster {version} is not served: served are {served}, conditions {conditions}"
        )


def demand_ready_in_time(postgres: PostgresCluster, count: int, within_s: float) -> Finding:
    """Judge when the last instance became ready, from the objects' own timestamps."""
    created = _time(postgres.object()["metadata"]["creationTimestamp"])
    ready = sorted(_ready_since(pod) for pod in _pods(postgres))
    if len(ready) < count:
        raise Violation(f"{len(ready)} of {count} instances are ready")
    # A pod that was replaced since says when the new one was ready, which is later: never too good.
    took_s = (ready[count - 1] - created).total_seconds()
    numbers = {"took_s": took_s, "budget_s": within_s, "instances": count}
    if took_s > within_s:
        sentence = f"{count} instances took {took_s:.0f} s, allowed were {within_s:g} s"
        return Finding("ready-in-time", "violated", sentence, numbers)
    return Finding("ready-in-time", "holds", f"{count} instances took {took_s:.0f} s", numbers)


def demand_volumes(postgres: PostgresCluster) -> None:
    """Demand a bound data claim for every instance, each with a volume of its own."""
    claims = _claims(postgres)
    volumes: dict[str, str] = {}
    for one in postgres.observe().instances:
        claim = claims.get(f"{one.name}-pgdata")
        if claim is None:
            raise Violation(f"instance {one.name} has no claim {one.name}-pgdata")
        volume = _bound(claim)
        if volume in volumes:
            raise Violation(f"{one.name} and {volumes[volume]} share the volume {volume}")
        volumes[volume] = one.name
    if not volumes:
        raise Inconclusive(f"PostgresCluster {postgres.name} has no instance")


def demand_repository(postgres: PostgresCluster) -> None:
    """Demand that every backup repository on a volume is bound."""
    found = [
        claim
        for claim in _claims(postgres).values()
        if f"{names.GROUP}/pgbackrest-repo" in names.labels(claim)
    ]
    if not found:
        raise Violation("no claim of a backup repository exists")
    for claim in found:
        _bound(claim)


def demand_spread(seen: Observation, by: str) -> None:
    """Demand that no two instances share a ``node`` or ``zone``."""
    placed: dict[str, str] = {}
    for one in seen.instances:
        where = one.node if by == "node" else one.zone
        if not where:
            raise Violation(f"{one.pod} has no {by}")
        if where in placed:
            raise Violation(f"{one.pod} and {placed[where]} both run in {by} {where}")
        placed[where] = one.pod
    if not placed:
        raise Inconclusive("there is no instance")


def demand_pod_labels(postgres: PostgresCluster) -> None:
    """Demand the labels by which PGO's own documentation finds instance pods."""
    pods = _pods(postgres)
    if not pods:
        raise Violation("no instance pod carries the cluster's label")
    sets = {one.get("name") for one in postgres.object()["spec"]["instances"]}
    for pod in pods:
        found, name = names.labels(pod), pod["metadata"]["name"]
        expected = name.rsplit("-", 1)[0]
        if found.get(names.INSTANCE) != expected:
            raise Violation(f"{name} is labelled as instance {found.get(names.INSTANCE)!r}")
        if found.get(names.INSTANCE_SET) not in sets:
            raise Violation(f"{name} is labelled with set {found.get(names.INSTANCE_SET)!r}")


def demand_role_labels(seen: Observation, replicas: int) -> None:
    """Demand exactly one pod labelled as the primary and the others as replicas."""
    labelled = seen.labelled_primaries
    others = [one.pod for one in seen.instances if one.role_label == names.REPLICA_LABEL]
    if len(labelled) != 1 or len(others) != replicas:
        raise Violation(
            f"labelled as primary: {', '.join(labelled) or 'nobody'}; as replica: "
            f"{', '.join(others) or 'nobody'}"
        )


def demand_service_port(postgres: PostgresCluster, which: str, port: int) -> None:
    """Demand that a Service offers a port."""
    service = postgres.kube.get("Service", postgres.service(which), postgres.namespace)
    ports = [one["port"] for one in service["spec"].get("ports") or []]
    if port not in ports:
        raise Violation(f"Service {postgres.service(which)} offers {ports}, not {port}")


def demand_endpoints(postgres: PostgresCluster, which: str) -> None:
    """Demand that a Service has somebody behind it."""
    found = postgres.kube.get("Endpoints", postgres.service(which), postgres.namespace)
    ready = [
        address["ip"]
        for subset in found.get("subsets") or []
        for address in subset.get("addresses") or []
    ]
    if not ready:
        raise Violation(f"Service {postgres.service(which)} has no ready endpoint")


def demand_secret_keys(values: dict[str, str], user: str) -> None:
    """Demand that a user's Secret names everything an application needs."""
    missing = [key for key in NEEDED_KEYS if not values.get(key)]
    if missing:
        raise Violation(f"the Secret of {user} lacks {', '.join(missing)}: it has {sorted(values)}")


def demand_budget(postgres: PostgresCluster) -> None:
    """Demand a disruption budget that keeps at least one instance of every set running."""
    wanted = {one.get("name") for one in postgres.object()["spec"]["instances"]}
    budgets = postgres.kube.list(
        "policy/v1/PodDisruptionBudget", postgres.namespace, labels={names.CLUSTER: postgres.name}
    )
    covered = {
        names.labels(one).get(names.INSTANCE_SET)
        for one in budgets
        if _at_least_one(one["spec"].get("minAvailable"))
    }
    if not wanted <= covered:
        raise Violation(f"no disruption budget keeps an instance of {sorted(wanted - covered)}")


def demand_status(postgres: PostgresCluster, ready: int | None = None) -> None:
    """Demand that the status speaks of the newest generation, and of ``ready`` instances."""
    status = postgres.observe().status
    if status is None:
        raise Violation("the PostgresCluster has no status")
    if status.observed_generation != status.generation:
        raise Violation(
            f"the status is of generation {status.observed_generation}, not {status.generation}"
        )
    counted = sum(one.ready for one in status.sets.values())
    if ready is not None and counted != ready:
        raise Violation(f"the status counts {counted} ready instances, not {ready}")


def _pods(postgres: PostgresCluster) -> list[Object]:
    found = postgres.kube.list("Pod", postgres.namespace, labels={names.CLUSTER: postgres.name})
    return [pod for pod in found if names.is_instance_pod(pod, postgres.name)]


def _claims(postgres: PostgresCluster) -> dict[str, Object]:
    found = postgres.kube.list(
        "PersistentVolumeClaim", postgres.namespace, labels={names.CLUSTER: postgres.name}
    )
    return {claim["metadata"]["name"]: claim for claim in found}


def _bound(claim: Object) -> str:
    name, phase = claim["metadata"]["name"], (claim.get("status") or {}).get("phase")
    volume = claim["spec"].get("volumeName")
    if phase != "Bound" or not volume:
        raise Violation(f"claim {name} is {phase}, not Bound to a volume")
    return str(volume)


def _ready_since(pod: Object) -> datetime:
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition["type"] == "Ready" and condition["status"] == "True":
            return _time(condition["lastTransitionTime"])
    raise Violation(f"pod {pod['metadata']['name']} is not ready")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _at_least_one(least: Any) -> bool:
    return (isinstance(least, int) and least >= 1) or (
        isinstance(least, str) and least.rstrip("%").isdigit() and int(least.rstrip("%")) > 0
    )
