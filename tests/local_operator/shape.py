"""The shape of what an operator made of a PostgresCluster: what stays when names and values go.

Instances, generated names and users are folded into one word each, so that two clusters can be
compared. What a shape holds: labels, annotations' keys, owners, who applied it, and for each kind
what others rely on: ports, keys, selectors, containers, mounts, probes, rules, conditions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Obj = dict[str, Any]
P = "postgres-operator.crunchydata.com/"
# Written by others about their own doings, and different from one cluster to the next.
_FOREIGN = re.compile(
    r"^(kubectl\.kubernetes\.io/last-applied|pv\.kubernetes\.io/|volume\.|deployment\.kubernetes\.io/"
    r"|endpoints\.kubernetes\.io/|control-plane\.|autoscaling\.|cni\.|k3s\.)"
)
_VALUE_IS_CHANCE = {
    "controller-revision-hash",
    "pod-template-hash",
    "batch.kubernetes.io/controller-uid",
    "controller-uid",
    "apps.kubernetes.io/pod-index",
}


class Fold:
    """Replaces what is chance in names. ``users`` are those with a database."""

    def __init__(self, objects: Iterable[Obj], cluster: str, users: Iterable[str]) -> None:
        self._rules: list[tuple[re.Pattern[str], str]] = []
        found = list(objects)
        for one in found:
            labels = one["metadata"].get("labels") or {}
            if one["kind"] == "StatefulSet" and f"{P}instance" in labels:
                self._rule(re.escape(one["metadata"]["name"]), f"{cluster}-SET-INST")
        for one in found:
            labels = one["metadata"].get("labels") or {}
            if f"{P}instance-set" in labels:
                self._rule(rf"\b{re.escape(labels[f'{P}instance-set'])}\b", "SET")
        for user in users:
            self._rule(rf"\b{re.escape(user)}$", "USER")
        self._rule(rf"^{cluster}-backup-[a-z0-9]{{4}}(-[a-z0-9]{{5}})?$", f"{cluster}-backup-JOB")
        self._rule(rf"^{cluster}-pgbouncer-[a-z0-9]+(-[a-z0-9]{{5}})?$", f"{cluster}-pgbouncer-POD")

    def _rule(self, pattern: str, word: str) -> None:
        self._rules.append((re.compile(pattern), word))

    def __call__(self, text: str) -> str:
        for pattern, word in self._rules:
            text = pattern.sub(word, text)
        return text


def shapes(
    objects: Iterable[Obj], *, cluster: str, users: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Return a shape for each ``Kind/name``; objects that fold into one name must agree.

    Where they do not (the labels of primary and replica), every value that was seen is listed.
    """
    found = list(objects)
    fold = Fold(found, cluster, users)
    folded: dict[str, dict[str, Any]] = {}
    for one in found:
        name = f"{one['kind']}/{fold(one['metadata']['name'])}"
        shape = _shape(one, fold)
        folded[name] = _merged(folded[name], shape) if name in folded else shape
    return dict(sorted(folded.items()))


def differences(expected: Mapping[str, Any], seen: Mapping[str, Any]) -> list[str]:
    """Return every difference as a line: where, what the facts say, what is there."""
    return list(_differ(expected, seen, ""))


def _differ(expected: Any, seen: Any, path: str) -> Iterable[str]:
    if isinstance(expected, Mapping) and isinstance(seen, Mapping):
        for key in sorted({*expected, *seen}):
            where = f"{path} › {key}" if path else str(key)
            if key not in seen:
                yield f"{where}: missing, PGO has {expected[key]!r}"
            elif key not in expected:
                yield f"{where}: PGO has no such thing, here is {seen[key]!r}"
            else:
                yield from _differ(expected[key], seen[key], where)
    elif expected != seen:
        yield f"{path}: PGO has {expected!r}, here is {seen!r}"


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {key: _both(one.get(key), other.get(key)) for key in sorted({*one, *other})}


def _both(one: Any, other: Any) -> Any:
    if one == other:
        return one
    if isinstance(one, dict) and isinstance(other, dict):
        return _merged(one, other)
    values = {v for each in (one, other) for v in (each.split(" | ") if each else ["–"])}
    return " | ".join(sorted(values))


def _shape(one: Obj, fold: Fold) -> dict[str, Any]:
    meta = one["metadata"]
    labels = meta.get("labels") or {}
    found: dict[str, Any] = {
        "labels": {
            key.replace(P, "P/"): "…" if key in _VALUE_IS_CHANCE else fold(value)
            for key, value in sorted(labels.items())
        },
        "annotations": sorted(
            key.replace(P, "P/") for key in meta.get("annotations") or {} if not _FOREIGN.match(key)
        ),
        "owners": [
            f"{owner['kind']}/{fold(owner['name'])}"
            + (" controller" if owner.get("controller") else "")
            for owner in meta.get("ownerReferences") or []
        ],
        "applied by": sorted(
            {
                entry["manager"]
                for entry in meta.get("managedFields") or []
                if entry["operation"] == "Apply" and not entry.get("subresource")
            }
        )
        # Whoever wants a cluster applies it as he likes.
        if one["kind"] != "PostgresCluster"
        else [],
    }
    more = _OF_KIND.get(one["kind"])
    shape: dict[str, Any] = _texts(found | (more(one, fold) if more else {}))
    return shape


def _texts(value: Any) -> Any:
    """Turn lists into lines: short to read in a table, and equal only as a whole."""
    if isinstance(value, dict):
        return {key: _texts(one) for key, one in value.items()}
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return value


def _service(one: Obj, _fold: Fold) -> dict[str, Any]:
    spec = one["spec"]
    return {
        "type": "headless" if spec.get("clusterIP") == "None" else spec.get("type"),
        "selector": _selector(spec.get("selector")),
        "ports": [_port(port) for port in spec.get("ports") or []],
        "publishes not ready": bool(spec.get("publishNotReadyAddresses")),
    }


def _port(port: Obj) -> str:
    target = f"→{port['targetPort']}" if "targetPort" in port else ""
    number = port.get("port") or port.get("containerPort")
    return f"{port.get('name', '')} {number}{target}/{port.get('protocol', 'TCP')}"


def _selector(labels: Mapping[str, str] | None) -> str:
    return ", ".join(
        f"{key.replace(P, 'P/')}={'…' if key in _VALUE_IS_CHANCE else value}"
        for key, value in sorted((labels or {}).items())
    )


def _endpoints(one: Obj, _fold: Fold) -> dict[str, Any]:
    subsets = one.get("subsets") or []
    return {"ports": sorted({_port(port) for some in subsets for port in some.get("ports") or []})}


def _keys(one: Obj, _fold: Fold) -> dict[str, Any]:
    return {"keys": sorted(one.get("data") or {})} | (
        {"type": one["type"]} if "type" in one else {}
    )


def _workload(one: Obj, fold: Fold) -> dict[str, Any]:
    spec = one["spec"]
    labels = spec["template"]["metadata"].get("labels") or {}
    found = {
        "selector": _selector(
            {k: fold(v) for k, v in ((spec.get("selector") or {}).get("matchLabels") or {}).items()}
        ),
        "template": {
            "labels": _selector({k: fold(v) for k, v in labels.items()})
            if one["kind"] != "Job"
            else "",
            "annotations": sorted(spec["template"]["metadata"].get("annotations") or {}),
        },
        "pod": _pod_spec(spec["template"]["spec"], fold),
    }
    for field in ("serviceName", "podManagementPolicy", "revisionHistoryLimit"):
        if field in spec:
            found[field] = spec[field]
    update = spec.get("updateStrategy") or spec.get("strategy")
    if update:
        rolling = update.get("rollingUpdate") or {}
        found["update"] = f"{update['type']} maxUnavailable={rolling.get('maxUnavailable')}"
    return found


def _pod_spec(spec: Obj, fold: Fold) -> dict[str, Any]:
    return {
        "account": spec.get("serviceAccountName"),
        "token": spec.get("automountServiceAccountToken"),
        "service links": spec.get("enableServiceLinks"),
        "shared processes": spec.get("shareProcessNamespace"),
        "restart": spec.get("restartPolicy"),
        "grace": spec.get("terminationGracePeriodSeconds"),
        "security": {k: v for k, v in (spec.get("securityContext") or {}).items() if v},
        "containers": {
            one["name"]: _container(one)
            for one in [*(spec.get("initContainers") or []), *spec["containers"]]
        },
        "volumes": {one["name"]: _source(one, fold) for one in spec.get("volumes") or []},
    }


def _container(one: Obj) -> dict[str, Any]:
    security = one.get("securityContext") or {}
    return {
        "ports": [_port(port) for port in one.get("ports") or []],
        "environment": [entry["name"] for entry in one.get("env") or []],
        "mounts": sorted(
            f"{mount['name']} at {mount['mountPath']}{' ro' if mount.get('readOnly') else ''}"
            for mount in one.get("volumeMounts") or []
        ),
        "probes": {
            kind: _probe(one[f"{kind}Probe"])
            for kind in ("startup", "liveness", "readiness")
            if f"{kind}Probe" in one
        },
        "drops": ",".join((security.get("capabilities") or {}).get("drop") or []),
        "read-only root": security.get("readOnlyRootFilesystem"),
        "not root": security.get("runAsNonRoot"),
    }


def _probe(probe: Obj) -> str:
    if "httpGet" in probe:
        get = probe["httpGet"]
        return f"{get['scheme']} {get['path']} :{get['port']}"
    return " ".join(probe["exec"]["command"])


def _source(volume: Obj, fold: Fold) -> str:
    kind = next(key for key in volume if key != "name")
    source = volume[kind]
    if kind == "projected":
        parts = []
        for part in source["sources"]:
            sort = next(iter(part))
            items = ",".join(
                sorted(f"{i['key']}→{i['path']}" for i in part[sort].get("items") or [])
            )
            name = fold(part[sort].get("name", ""))
            parts.append(
                f"{sort} {name}[{items}]{' optional' if part[sort].get('optional') else ''}"
            )
        return "projected " + "; ".join(parts)
    if kind == "persistentVolumeClaim":
        return f"claim {fold(source['claimName'])}"
    if kind == "downwardAPI":
        return "downwardAPI " + ",".join(item["path"] for item in source["items"])
    return kind + (f" {source}" if source else "")


def _rules(one: Obj, _fold: Fold) -> dict[str, Any]:
    return {
        "rules": [
            f"{'/'.join(rule['apiGroups'])} {'+'.join(rule['resources'])}: "
            f"{' '.join(sorted(rule['verbs']))}"
            for rule in one.get("rules") or []
        ]
    }


def _binding(one: Obj, _fold: Fold) -> dict[str, Any]:
    return {
        "role": f"{one['roleRef']['kind']}/{one['roleRef']['name']}",
        "subjects": [f"{who['kind']}/{who['name']}" for who in one.get("subjects") or []],
    }


def _budget(one: Obj, fold: Fold) -> dict[str, Any]:
    chosen = (one["spec"].get("selector") or {}).get("matchLabels")
    return {
        "at least": one["spec"].get("minAvailable"),
        "selector": _selector({k: fold(v) for k, v in (chosen or {}).items()}),
    }


def _account(one: Obj, _fold: Fold) -> dict[str, Any]:
    return {"token": one.get("automountServiceAccountToken")}


def _cluster(one: Obj, _fold: Fold) -> dict[str, Any]:
    status = one["status"]
    return {
        "finalizers": one["metadata"].get("finalizers") or [],
        "status": sorted(status),
        "status of pgBackRest": sorted(status.get("pgbackrest") or {}),
        "status of a repository": sorted((status.get("pgbackrest") or {}).get("repos", [{}])[0]),
        "conditions": {
            each["type"]: f"{each['status']} {each['reason']}" for each in status["conditions"]
        },
    }


_OF_KIND = {
    "Service": _service,
    "Endpoints": _endpoints,
    "Secret": _keys,
    "ConfigMap": _keys,
    "StatefulSet": _workload,
    "Deployment": _workload,
    "Job": _workload,
    "Role": _rules,
    "RoleBinding": _binding,
    "PodDisruptionBudget": _budget,
    "ServiceAccount": _account,
    "PostgresCluster": _cluster,
}
