"""The volumes, the pods and the PostgresCluster itself."""

from __future__ import annotations

import shlex
from typing import Any

from pytest_pgo_eks.audit.facts import Facts
from pytest_pgo_eks.audit.result import DECLARED, Check, Result, failed, passed, warned

_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_ENFORCE = "pod-security.kubernetes.io/enforce"
_INTERNAL = (
    "service.beta.kubernetes.io/aws-load-balancer-internal",
    "service.beta.kubernetes.io/aws-load-balancer-scheme",
)


def encrypted_volumes(facts: Facts) -> Result:
    seen = [f"account default: {facts['encryption_by_default']}"]
    open_volumes = [v["VolumeId"] for v in facts["volumes"] if not v.get("Encrypted")]
    if open_volumes:
        return failed(f"{len(open_volumes)} volumes are not encrypted", *open_volumes)
    default = default_class(facts)
    if default is None:
        return warned("there is no default StorageClass; a claim that names none waits", *seen)
    told = str((default.get("parameters") or {}).get("encrypted", "false")).lower()
    seen.append(f"StorageClass {default['metadata']['name']}: encrypted {told}")
    if told != "true" and not facts["encryption_by_default"]:
        return failed("volumes of the default StorageClass are not encrypted", *seen)
    return passed(f"all {len(facts['volumes'])} volumes are encrypted, and new ones will be", *seen)


def default_class(facts: Facts) -> dict[str, Any] | None:
    """Return the default StorageClass, None where there is none."""
    for one in facts["storage_classes"]:
        if (one["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true":
            return dict(one)
    return None


def pod_security(facts: Facts) -> Result:
    bad, soft = [], []
    for pod in facts["pods"]:
        name, spec = pod["metadata"]["name"], pod["spec"]
        whole = spec.get("securityContext") or {}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            own = container.get("securityContext") or {}
            where = f"{name}/{container['name']}"
            if own.get("privileged"):
                bad.append(f"{where} is privileged")
            user = own.get("runAsUser", whole.get("runAsUser"))
            if user == 0:
                bad.append(f"{where} runs as root")
            elif user is None and not own.get("runAsNonRoot", whole.get("runAsNonRoot")):
                soft.append(f"{where} may run as root")
            if not (own.get("seccompProfile") or whole.get("seccompProfile")):
                soft.append(f"{where} has no seccomp profile")
    for namespace in facts["namespaces"]:
        level = (namespace["metadata"].get("labels") or {}).get(_ENFORCE)
        if level not in ("baseline", "restricted"):
            soft.append(f"namespace {namespace['metadata']['name']} enforces no Pod Security level")
    if bad:
        return failed("containers have more rights than they need", *bad)
    if soft:
        return warned("nothing stops a container from asking for more", *soft)
    return passed("no container is privileged or root, and the namespaces forbid it")


def doors(facts: Facts) -> Result:
    """The ways to a password-less or unencrypted session, and from the internet."""
    spec = facts["postgres"]["spec"]
    dynamic = (spec.get("patroni") or {}).get("dynamicConfiguration") or {}
    rules = (dynamic.get("postgresql") or {}).get("pg_hba") or []
    trusting = [rule for rule in rules if _trusts(rule)]
    exposed = [
        f"{s['metadata']['namespace']}/{s['metadata']['name']}"
        for s in facts["services"]
        if _exposed(s)
    ]
    if exposed:
        return failed("a load balancer shows PostgreSQL to the internet", *exposed)
    if trusting:
        told = "the PostgresCluster lets everybody in without a password"
        return failed(told, *trusting, asked_for_by=DECLARED)
    plain = [rule for rule in rules if shlex.split(rule)[:1] == ["host"]]
    if plain:
        return warned("the PostgresCluster allows sessions without TLS", *plain)
    return passed("nobody gets in without a credential, TLS, and a way through the cluster")


def _trusts(rule: str) -> bool:
    words = shlex.split(rule)
    return words[:1] != ["local"] and words[-1:] == ["trust"]


def _exposed(service: dict[str, Any]) -> bool:
    if service["spec"].get("type") != "LoadBalancer":
        return False
    notes = service["metadata"].get("annotations") or {}
    if any(notes.get(name) in ("true", "internal") for name in _INTERNAL):
        return False
    ranges = service["spec"].get("loadBalancerSourceRanges") or ["0.0.0.0/0"]
    return "0.0.0.0/0" in ranges


CHECKS = (
    Check(
        "A9",
        "volumes are encrypted",
        "S5, S15: encryption",
        encrypted_volumes,
        "Security Hub EC2.3, EC2.7",
    ),
    Check(
        "A13",
        "containers have no right they do not need",
        "S15: access control",
        pod_security,
        "Kubernetes, Pod Security Standards",
    ),
    Check(
        "A14",
        "PostgreSQL lets nobody in without credential and TLS",
        "S10, S15: authentication",
        doors,
        "PostgreSQL, client authentication",
    ),
)
