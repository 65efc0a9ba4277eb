"""A PostgresCluster as the operator reads it: the object's fields with their defaults applied."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pytest_pgo_eks.local.objects import Obj, annotations_of, labels_of
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.releases import Release


@dataclass(frozen=True)
class Images:
    """Where image names come from when the cluster's spec names none: ``RELATED_IMAGE_…``."""

    related: Mapping[str, str]

    @classmethod
    def from_environment(cls) -> Images:
        prefix = "RELATED_IMAGE_"
        return cls({k[len(prefix) :]: v for k, v in os.environ.items() if k.startswith(prefix)})

    def postgres(self, cluster: Cluster) -> str:
        name = f"POSTGRES_{cluster.postgres_version}"
        if cluster.spec.get("postGISVersion"):
            name += f"_GIS_{cluster.spec['postGISVersion']}"
        return cluster.spec.get("image") or self.related.get(name, "")

    def pgbackrest(self, cluster: Cluster) -> str:
        return (cluster.pgbackrest or {}).get("image") or self.related.get("PGBACKREST", "")

    def pgbouncer(self, cluster: Cluster) -> str:
        return (cluster.pgbouncer or {}).get("image") or self.related.get("PGBOUNCER", "")

    def missing(self, cluster: Cluster) -> list[str]:
        """Return what has no image: the server's and pgBackRest's are needed in every case."""
        found = {
            f"crunchy-postgres:{cluster.postgres_version}": self.postgres(cluster),
            "crunchy-pgbackrest": self.pgbackrest(cluster),
        }
        if cluster.pgbouncer is not None:
            found["crunchy-pgbouncer"] = self.pgbouncer(cluster)
        return [what for what, image in found.items() if not image]


class Cluster:
    """One PostgresCluster: identity, spec with defaults, and the names that follow from them.

    The API server applies the CRD's defaults; they are applied here again so that rendering does
    not depend on it (an object read before the CRD was replaced has none).
    """

    def __init__(self, obj: Obj, release: Release) -> None:
        self.obj = obj
        self.release = release
        self.name: str = obj["metadata"]["name"]
        self.namespace: str = obj["metadata"]["namespace"]
        self.uid: str = obj["metadata"]["uid"]
        self.generation: int = obj["metadata"].get("generation", 1)
        self.spec: Obj = obj.get("spec") or {}
        self.status: Obj = copy.deepcopy(obj.get("status") or {})
        self.annotations = annotations_of(obj)

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    @property
    def postgres_version(self) -> int:
        return int(self.spec["postgresVersion"])

    @property
    def port(self) -> int:
        return int(self.spec.get("port") or 5432)

    @property
    def shutdown(self) -> bool:
        return bool(self.spec.get("shutdown"))

    @property
    def paused(self) -> bool:
        return bool(self.spec.get("paused"))

    @property
    def deleting(self) -> bool:
        return bool(self.obj["metadata"].get("deletionTimestamp"))

    @cached_property
    def instance_sets(self) -> list[Obj]:
        """The sets with name and replicas filled in; a set without a name is called 00, 01, …."""
        found = []
        for index, given in enumerate(self.spec.get("instances") or []):
            found.append(
                {
                    **given,
                    "name": given.get("name") or f"{index:02}",
                    "replicas": 1 if given.get("replicas") is None else given["replicas"],
                }
            )
        return found

    @property
    def patroni(self) -> Obj:
        return self.spec.get("patroni") or {}

    @property
    def lease_s(self) -> int:
        return int(self.patroni.get("leaderLeaseDurationSeconds") or 30)

    @property
    def sync_s(self) -> int:
        return int(self.patroni.get("syncPeriodSeconds") or 10)

    @property
    def patroni_port(self) -> int:
        return int(self.patroni.get("port") or 8008)

    @property
    def patroni_scope(self) -> str:
        return f"{self.name}-ha"

    @property
    def pgbackrest(self) -> Obj | None:
        found: Obj | None = (self.spec.get("backups") or {}).get("pgbackrest")
        return found

    @property
    def repos(self) -> list[Obj]:
        """The repositories on volumes; the first of them is the one replicas are built from."""
        return [r for r in (self.pgbackrest or {}).get("repos") or [] if r.get("volume")]

    @property
    def pgbouncer(self) -> Obj | None:
        found: Obj | None = (self.spec.get("proxy") or {}).get("pgBouncer")
        return found

    @property
    def pgbouncer_port(self) -> int:
        return int((self.pgbouncer or {}).get("port") or 5432)

    @property
    def pgbouncer_replicas(self) -> int:
        given = (self.pgbouncer or {}).get("replicas")
        return 1 if given is None else int(given)

    @cached_property
    def users(self) -> list[Obj]:
        """The users as declared; one named like the cluster, with a database, where none are."""
        given = self.spec.get("users")
        if given is None:
            return [{"name": self.name, "databases": [self.name]}]
        return [
            {**user, "databases": ["postgres"], "options": ""}
            if user["name"] == "postgres"
            else user
            for user in given
        ]

    @property
    def bootstrapped(self) -> bool:
        return bool((self.status.get("patroni") or {}).get("systemIdentifier"))

    @property
    def replica_create_complete(self) -> bool:
        """Say whether some repository holds the backup that replicas are built from."""
        repos = (self.status.get("pgbackrest") or {}).get("repos") or []
        wanted = {r["name"] for r in self.repos}
        return any(r.get("replicaCreateBackupComplete") and r["name"] in wanted for r in repos)

    @property
    def data_directory(self) -> str:
        return f"/pgdata/pg{self.postgres_version}"

    def wal_directory(self, instance_set: Obj) -> str:
        root = "/pgwal" if instance_set.get("walVolumeClaimSpec") else "/pgdata"
        return f"{root}/pg{self.postgres_version}_wal"

    def dns_names(self, service: str, host: str = "") -> list[str]:
        """Return the four names of a Service, or of a pod behind it, longest first."""
        short = f"{host}.{service}" if host else service
        base = f"{short}.{self.namespace}"
        return [f"{base}.svc.cluster.local.", f"{base}.svc", base, short]

    def metadata(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        *blocks: Mapping[str, Any] | None,
        annotations: Mapping[str, str] | None = None,
    ) -> Obj:
        """Return the metadata of an object made for this cluster.

        ``blocks`` are the user's ``metadata`` of more specific parts of the spec; later ones win,
        and the operator's own labels win over all of them.
        """
        found: Obj = {
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels(labels, *blocks),
            "ownerReferences": [names.controller_reference(self.obj)],
        }
        notes = self.notes(annotations, *blocks)
        if notes:
            found["annotations"] = notes
        return found

    def labels(
        self, own: Mapping[str, str] | None = None, *blocks: Mapping[str, Any] | None
    ) -> dict[str, str]:
        merged: dict[str, str] = {}
        for block in (self.spec.get("metadata"), *blocks):
            merged |= (block or {}).get("labels") or {}
        return merged | {names.CLUSTER: self.name} | dict(own or {})

    def notes(
        self, own: Mapping[str, str] | None = None, *blocks: Mapping[str, Any] | None
    ) -> dict[str, str]:
        merged: dict[str, str] = {}
        for block in (self.spec.get("metadata"), *blocks):
            merged |= (block or {}).get("annotations") or {}
        return merged | dict(own or {})


def cluster_of(obj: Obj) -> tuple[str, str] | None:
    """Return (namespace, name) of the cluster an object is labelled with."""
    name = labels_of(obj).get(names.CLUSTER)
    return (obj["metadata"].get("namespace", ""), name) if name else None
