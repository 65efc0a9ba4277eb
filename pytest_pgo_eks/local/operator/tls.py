"""Every Secret that holds certificates: kept while it is sound, issued anew when it is not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from pytest_pgo_eks.local.objects import Kind, Obj
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.certificates import (
    KeyPair,
    leaf_is_usable,
    make_leaf,
    make_root,
    root_is_usable,
)
from pytest_pgo_eks.local.operator.desired import Cluster
from pytest_pgo_eks.local.operator.users import decoded, secret

Rendered = tuple[Kind, Obj]


def now() -> dt.datetime:
    """Return the present in UTC, to the second as certificates have it."""
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def root_of(existing: Obj | None) -> KeyPair:
    """Return the CA in the namespace's Secret, or a new one."""
    data = decoded(existing)
    found = KeyPair(data.get("root.crt", ""), data.get("root.key", ""))
    return found if root_is_usable(found, now()) else make_root(now())


def root_secret(cluster: Cluster, root: KeyPair, existing: Obj | None) -> Rendered:
    """Return the namespace's shared Secret; it goes with the last of the clusters that own it."""
    owners = (existing or {}).get("metadata", {}).get("ownerReferences") or []
    mine = names.plain_reference(cluster.obj)
    others = [owner for owner in owners if owner["uid"] != cluster.uid]
    metadata = {
        "name": names.ROOT_SECRET,
        "namespace": cluster.namespace,
        "ownerReferences": [*others, mine],
    }
    return secret(metadata, {"root.crt": root.certificate, "root.key": root.key})


def _leaf(root: KeyPair, sans: Sequence[str], kept: dict[str, str], name: str) -> KeyPair:
    """Return the pair kept under ``name``.crt and ``name``.key, or a new one."""
    found = KeyPair(kept.get(f"{name}.crt", ""), kept.get(f"{name}.key", ""))
    return found if leaf_is_usable(found, root, sans, now()) else make_leaf(root, sans, now())


def cluster_certificate(cluster: Cluster, root: KeyPair, existing: Obj | None) -> Rendered:
    """Return what the servers show to clients: the names of the primary and replica Services."""
    sans = cluster.dns_names(f"{cluster.name}-primary")
    sans += cluster.dns_names(f"{cluster.name}-replicas")
    leaf = _leaf(root, sans, decoded(existing), "tls")
    own = {names.CERTIFICATE: "postgres-tls"}
    return secret(cluster.metadata(f"{cluster.name}-cluster-cert", own), _client(root, leaf))


def replication_certificate(cluster: Cluster, root: KeyPair, existing: Obj | None) -> Rendered:
    """Return the client certificate of ``_crunchyrepl``, the only way in for that role."""
    leaf = _leaf(root, [names.REPLICATION_USER], decoded(existing), "tls")
    own = {names.CERTIFICATE: "replication-client-tls"}
    return secret(cluster.metadata(f"{cluster.name}-replication-cert", own), _client(root, leaf))


def _client(root: KeyPair, leaf: KeyPair) -> dict[str, str]:
    return {"ca.crt": root.certificate, "tls.crt": leaf.certificate, "tls.key": leaf.key}


def instance_certificates(
    cluster: Cluster, instance_set: Obj, instance: str, root: KeyPair, existing: Obj | None
) -> Rendered:
    """Return the Secret of one instance: Patroni's and pgBackRest's server certificates."""
    kept = decoded(existing)
    sans = cluster.dns_names(f"{cluster.name}-pods", f"{instance}-0")
    leaf = _leaf(root, sans, kept, "dns")
    data = {
        "dns.crt": leaf.certificate,
        "dns.key": leaf.key,
        "patroni.ca-roots": root.certificate,
        "patroni.crt-combined": leaf.key + leaf.certificate,
    }
    if cluster.pgbackrest is not None:
        data["pgbackrest-server.crt"] = leaf.certificate
        data["pgbackrest-server.key"] = leaf.key
    own = {names.INSTANCE_SET: instance_set["name"], names.INSTANCE: instance}
    metadata = cluster.metadata(f"{instance}-certs", own, instance_set.get("metadata"))
    return secret(metadata, data)


def backrest_certificates(cluster: Cluster, root: KeyPair, existing: Obj | None) -> Rendered:
    """Return Secret ``hippo-pgbackrest``: the client's certificate and the repository host's."""
    kept = decoded(existing)
    client = _leaf(root, [backrest_client(cluster)], kept, "pgbackrest-client")
    data = {
        "pgbackrest.ca-roots": root.certificate,
        "pgbackrest-client.crt": client.certificate,
        "pgbackrest-client.key": client.key,
    }
    if cluster.repos:
        sans = cluster.dns_names(f"{cluster.name}-pods", f"{cluster.name}-repo-host-0")
        host = _leaf(root, sans, kept, "pgbackrest-repo-host")
        data["pgbackrest-repo-host.crt"] = host.certificate
        data["pgbackrest-repo-host.key"] = host.key
    own = {names.BACKREST: "", names.BACKREST_CONFIG: ""}
    block = (cluster.pgbackrest or {}).get("metadata")
    return secret(cluster.metadata(f"{cluster.name}-pgbackrest", own, block), data)


def backrest_client(cluster: Cluster) -> str:
    """Return the common name under which this cluster's hosts trust each other."""
    return f"pgbackrest@{cluster.uid}"


def pgbouncer_frontend(cluster: Cluster, root: KeyPair, kept: dict[str, str]) -> dict[str, str]:
    """Return what PgBouncer shows to clients, as keys of its Secret."""
    sans = cluster.dns_names(f"{cluster.name}-pgbouncer")
    leaf = _leaf(root, sans, kept, "pgbouncer-frontend")
    return {
        "pgbouncer-frontend.ca-roots": root.certificate,
        "pgbouncer-frontend.crt": leaf.certificate,
        "pgbouncer-frontend.key": leaf.key,
    }
