"""What installs the stand-in operator: namespace, CRD, account, rights, Deployment."""

from __future__ import annotations

from pytest_pgo_eks.local.objects import Obj
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.crd import definition
from pytest_pgo_eks.local.operator.releases import Release, release

NAMESPACE = "postgres-operator"
POSTGRES_VERSIONS = (15, 16, 17, 18)
HEALTH_PORT = 8081
_WRITE = ["create", "delete", "get", "list", "patch", "watch"]


def manifests(
    version: str = "6.0", *, namespace: str = NAMESPACE, images: dict[str, str] | None = None
) -> list[Obj]:
    """Return the objects to apply, in order, for PGO ``version`` ("6.0" or "5.8").

    ``images`` overrides names by their ``RELATED_IMAGE_`` suffix (``POSTGRES_16``, ``PGBACKREST``,
    ``PGBOUNCER``) and the operator's own under ``OPERATOR``.

    :raises ValueError: no such version.
    """
    played = release(version)
    related = {f"POSTGRES_{major}": f"stand-in/postgres:{major}" for major in POSTGRES_VERSIONS}
    related |= {
        "PGBACKREST": f"stand-in/pgbackrest:{version}",
        "PGBOUNCER": f"stand-in/pgbouncer:{version}",
        "OPERATOR": f"stand-in/operator:{version}",
    }
    related |= images or {}
    labels = {
        "app.kubernetes.io/name": "pgo",
        "app.kubernetes.io/version": played.label,
        names.CONTROL_PLANE: "postgres-operator",
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {names.CONTROL_PLANE: "postgres-operator"}},
        },
        definition(played),
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "pgo", "namespace": namespace, "labels": labels},
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "postgres-operator", "labels": labels},
            "rules": _rules(),
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "postgres-operator", "labels": labels},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "postgres-operator",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "pgo", "namespace": namespace}],
        },
        _deployment(played, namespace, labels, related),
    ]


def _rules() -> list[Obj]:
    """Return PGO's rights, and ``get`` on pods/exec: a WebSocket opens with GET, SPDY with POST."""
    return [
        _rule("", ["configmaps", "persistentvolumeclaims", "secrets"], _WRITE),
        _rule("", ["serviceaccounts", "services"], _WRITE),
        _rule("", ["endpoints"], [*_WRITE, "deletecollection"]),
        _rule("", ["endpoints/restricted"], ["create"]),
        _rule("", ["pods/exec"], ["create", "get"]),
        _rule("", ["events"], ["create", "patch"]),
        _rule("", ["pods"], ["delete", "get", "list", "patch", "watch"]),
        _rule("apps", ["deployments", "statefulsets"], _WRITE),
        _rule("batch", ["cronjobs", "jobs"], _WRITE),
        _rule("policy", ["poddisruptionbudgets"], _WRITE),
        _rule("rbac.authorization.k8s.io", ["roles", "rolebindings"], _WRITE),
        _rule("coordination.k8s.io", ["leases"], ["create", "get", "update", "watch"]),
        _rule(names.API_GROUP, ["postgresclusters"], ["get", "list", "patch", "watch"]),
        _rule(names.API_GROUP, ["postgresclusters/finalizers"], ["patch", "update"]),
        _rule(names.API_GROUP, ["postgresclusters/status"], ["patch"]),
    ]


def _rule(group: str, resources: list[str], verbs: list[str]) -> Obj:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _deployment(played: Release, namespace: str, labels: Obj, images: dict[str, str]) -> Obj:
    env: list[Obj] = [
        {"name": "PGO_RELEASE", "value": played.name},
        {"name": "PGO_INSTALLER", "value": "stand-in"},
        {
            "name": "PGO_NAMESPACE",
            "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        },
        {
            "name": "POD_NAME",
            "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
        },
    ]
    if played.leader_lease:
        env.append({"name": "PGO_CONTROLLER_LEASE_NAME", "value": "cpk-leader-election-lease"})
    env += [
        {"name": f"RELATED_IMAGE_{name}", "value": image}
        for name, image in images.items()
        if name != "OPERATOR"
    ]
    selector = {names.CONTROL_PLANE: "postgres-operator"}
    container: Obj = {
        "name": "operator",
        "image": images["OPERATOR"],
        "command": ["python3", "-m", "pytest_pgo_eks.local.operator"],
        "env": env,
        "ports": [{"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"}],
        # PGO's image starts in a blink and is looked at after five seconds; ours is looked at
        # every second until it answers, so that a run does not wait for a probe.
        "startupProbe": _probe("/readyz", 1, failures=60),
        "livenessProbe": _probe("/readyz", 20),
        "readinessProbe": _probe("/healthz", 10),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "pgo", "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"serviceAccountName": "pgo", "containers": [container]},
            },
        },
    }


def _probe(path: str, period: int, *, failures: int = 3) -> Obj:
    return {
        "httpGet": {"path": path, "port": HEALTH_PORT, "scheme": "HTTP"},
        "periodSeconds": period,
        "failureThreshold": failures,
    }
