"""The CustomResourceDefinition of PostgresCluster: the fields the stand-in reads, and their rules.

Written from the field list in PGO's documentation. What Kubernetes itself defines (affinity,
resources, projections) is passed through unchecked here and checked where the pod is created; so is
what PGO plays and the stand-in does not (`limits` reports it).
"""

from __future__ import annotations

from typing import Any

from pytest_pgo_eks.local.objects import Obj
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.parameters import REFUSED
from pytest_pgo_eks.local.operator.releases import Release

_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def definition(release: Release) -> Obj:
    """Return the CRD with the versions this release serves; v1beta1 is what is stored."""
    plural = "postgresclusters"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{names.API_GROUP}",
            "labels": {
                "app.kubernetes.io/name": "pgo",
                "app.kubernetes.io/version": release.label,
                names.CONTROL_PLANE: "postgres-operator",
            },
        },
        "spec": {
            "group": names.API_GROUP,
            "names": {
                "kind": "PostgresCluster",
                "listKind": "PostgresClusterList",
                "plural": plural,
                "singular": "postgrescluster",
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": version == "v1beta1",
                    "schema": {"openAPIV3Schema": _schema(version)},
                    "subresources": {"status": {}},
                }
                for version in release.api_versions
            ],
        },
    }


def _schema(version: str) -> Obj:
    return _object(
        {
            "apiVersion": _text(),
            "kind": _text(),
            "metadata": {"type": "object"},
            "spec": _spec(version),
            "status": _open(),
        }
    )


def _spec(version: str) -> Obj:
    return _object(
        {
            "metadata": _metadata(),
            "image": _text(),
            "imagePullPolicy": _text(enum=["Always", "Never", "IfNotPresent"]),
            "imagePullSecrets": _list(_object({"name": _text()})),
            "postgresVersion": _number(minimum=11, maximum=18),
            "postGISVersion": _text(),
            "port": _number(minimum=1024, default=5432),
            "instances": _instances(version),
            "patroni": _patroni(),
            "config": _object(
                {
                    "files": _list(_open()),
                    "parameters": {
                        "type": "object",
                        "additionalProperties": _number_or_text(),
                        "maxProperties": 50,
                        "x-kubernetes-validations": [
                            {
                                "rule": f"!self.exists(p, p.lowerAscii() in {list(REFUSED)})",
                                "message": "these parameters belong to the operator",
                            }
                        ],
                    },
                }
            ),
            "authentication": _object({"rules": _list(_hba_rule(), maxItems=10)}),
            "backups": _backups(),
            "users": _users(),
            "proxy": _object({"pgBouncer": _pgbouncer()}, required=["pgBouncer"]),
            "service": _service(),
            "replicaService": _service(),
            "standby": _object(
                {
                    "enabled": {"type": "boolean", "default": True},
                    "repoName": _text(pattern="^repo[1-4]$"),
                    "host": _text(),
                    "port": _number(minimum=1024),
                }
            ),
            "shutdown": {"type": "boolean"},
            "paused": {"type": "boolean"},
            "openshift": {"type": "boolean"},
            "disableDefaultPodScheduling": {"type": "boolean"},
            "supplementalGroups": _list(_number(format="int64", minimum=1, maximum=2147483647)),
            "customTLSSecret": _open(),
            "customReplicationTLSSecret": _open(),
            "databaseInitSQL": _object({"name": _text(), "key": _text()}, required=["name", "key"]),
            **{name: _open() for name in ("dataSource", "monitoring", "instrumentation")},
            **({"userInterface": _open()} if version == "v1beta1" else {}),
        },
        required=["instances", "postgresVersion"],
    )


def _instances(version: str) -> Obj:
    each = _object(
        {
            "name": _text(default="", pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"),
            "replicas": _number(minimum=1, default=1),
            "minAvailable": _number_or_text(),
            "metadata": _metadata(),
            "dataVolumeClaimSpec": _claim(),
            "walVolumeClaimSpec": _claim(),
            "sidecars": _open(),
            "volumes": _open(),
            "tablespaceVolumes": _list(_open()),
            **_scheduling(),
        },
        required=["dataVolumeClaimSpec"],
    )
    more: Obj = {"maxItems": 16} if version == "v1" else {}
    return _list(
        each,
        minItems=1,
        **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        **more,
    )


def _patroni() -> Obj:
    switchover = _object(
        {
            "enabled": {"type": "boolean"},
            "targetInstance": _text(),
            "type": _text(enum=["Switchover", "Failover"], default="Switchover"),
        },
        required=["enabled"],
    )
    return _object(
        {
            "dynamicConfiguration": _open(),
            "leaderLeaseDurationSeconds": _number(minimum=3, default=30),
            "syncPeriodSeconds": _number(minimum=1, default=10),
            "port": _number(minimum=1024, default=8008),
            "logging": _object({"storageLimit": _number_or_text(), "level": _text()}),
            "switchover": switchover,
        }
    )


def _hba_rule() -> Obj:
    """A rule is one line as text, or its parts; neither may trust whoever connects."""
    return _object(
        {
            "hba": _text(maxLength=100, pattern=r"^[^\n]+$", **{"not": {"pattern": r"\strust\b"}}),
            "connection": _text(enum=["local", "host", "hostssl", "hostnossl", "hostgssenc"]),
            "databases": _list(_text(), maxItems=20),
            "users": _list(_text(), maxItems=20),
            "method": _text(maxLength=20, **{"not": {"enum": ["trust"]}}),
            "options": {"type": "object", "additionalProperties": _number_or_text()},
        }
    )


def _backups() -> Obj:
    schedule = _text(minLength=6)
    repo = _object(
        {
            "name": _text(pattern="^repo[1-4]$"),
            "volume": _object({"volumeClaimSpec": _claim()}, required=["volumeClaimSpec"]),
            "schedules": _object(
                {"full": schedule, "differential": schedule, "incremental": schedule}
            ),
            **{name: _open() for name in ("s3", "gcs", "azure")},
        },
        required=["name"],
    )
    restore_name = _text(pattern="^repo[1-4]$")
    pgbackrest = _object(
        {
            "metadata": _metadata(),
            "image": _text(),
            "configuration": _list(_open()),
            "global": {"type": "object", "additionalProperties": _text()},
            "repos": _list(
                repo,
                minItems=1,
                **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            ),
            "repoHost": _object(_scheduling()),
            "jobs": _object(
                {
                    "backoffLimit": _number(minimum=0),
                    "ttlSecondsAfterFinished": _number(minimum=60),
                    "metadata": _metadata(),
                    **_scheduling(),
                }
            ),
            "sidecars": _open(),
            **{name: _open() for name in ("restore", "log")},
            "manual": _object(
                {"repoName": restore_name, "options": _list(_text())}, required=["repoName"]
            ),
        },
        required=["repos"],
    )
    return _object({"pgbackrest": pgbackrest, "snapshots": _open()})


def _users() -> Obj:
    user = _object(
        {
            "name": _text(pattern=_NAME, minLength=1, maxLength=63),
            "databases": _list(
                _text(minLength=1, maxLength=63), **{"x-kubernetes-list-type": "set"}
            ),
            # Neither a second statement nor a comment may hide in role options.
            "options": _text(pattern=r"^[^;]*$", maxLength=200, **{"not": {"pattern": r"--|/\*"}}),
            "password": _object(
                {"type": _text(enum=["ASCII", "AlphaNumeric"], default="ASCII")},
                required=["type"],
            ),
        },
        required=["name"],
    )
    return _list(
        user,
        maxItems=64,
        **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )


def _pgbouncer() -> Obj:
    settings = {"type": "object", "additionalProperties": _text()}
    return _object(
        {
            "metadata": _metadata(),
            "image": _text(),
            "replicas": _number(minimum=0, default=1),
            "port": _number(minimum=1024, default=5432),
            "minAvailable": _number_or_text(),
            "config": _object(
                {
                    "global": settings,
                    "databases": settings,
                    "users": settings,
                    "files": _list(_open()),
                }
            ),
            "service": _service(),
            "customTLSSecret": _open(),
            "sidecars": _open(),
            **_scheduling(),
        }
    )


def _service() -> Obj:
    return _object(
        {
            "metadata": _metadata(),
            "type": _text(enum=["ClusterIP", "NodePort", "LoadBalancer"], default="ClusterIP"),
            "nodePort": _number(),
            "externalTrafficPolicy": _text(enum=["Cluster", "Local"]),
            "internalTrafficPolicy": _text(enum=["Cluster", "Local"]),
            "ipFamilies": _list(_text(enum=["IPv4", "IPv6"])),
            "ipFamilyPolicy": _text(enum=["SingleStack", "PreferDualStack", "RequireDualStack"]),
        }
    )


def _claim() -> Obj:
    size: Obj = {"type": "object", "additionalProperties": _quantity()}
    return _object(
        {
            "accessModes": _list(_text(), minItems=1),
            "resources": _object(
                {
                    "limits": size,
                    "requests": {
                        "type": "object",
                        "additionalProperties": _quantity(),
                        "required": ["storage"],
                    },
                },
                required=["requests"],
            ),
            "storageClassName": _text(),
            "volumeMode": _text(),
            "volumeName": _text(),
            "selector": _open(),
            "dataSource": _open(),
            "autoGrow": _open(),
        },
        required=["accessModes", "resources"],
    )


def _scheduling() -> dict[str, Obj]:
    return {
        "affinity": _open(),
        "tolerations": _list(_open()),
        "topologySpreadConstraints": _list(_open()),
        "priorityClassName": _text(),
        "resources": _open(),
        "containers": _list(_open()),
    }


def _metadata() -> Obj:
    texts = {"type": "object", "additionalProperties": _text()}
    return _object({"labels": texts, "annotations": texts})


def _object(properties: dict[str, Obj], required: list[str] | None = None) -> Obj:
    found: Obj = {"type": "object", "properties": properties}
    return found | ({"required": required} if required else {})


def _open() -> Obj:
    return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _list(items: Obj, **more: Any) -> Obj:
    return {"type": "array", "items": items} | more


def _text(**more: Any) -> Obj:
    return {"type": "string"} | more


def _number(**more: Any) -> Obj:
    return {"type": "integer", "format": "int32"} | more


def _number_or_text() -> Obj:
    return {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}


def _quantity() -> Obj:
    pattern = r"^[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)([EPTGMk]i?|[mun]|[eE][+-]?[0-9]+)?$"
    return _number_or_text() | {"pattern": pattern}
