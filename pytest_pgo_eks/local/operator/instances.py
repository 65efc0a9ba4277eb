"""Instances: StatefulSet with its pod template, and volume claims."""

from __future__ import annotations

from pytest_pgo_eks.local.objects import CLAIM, STATEFUL_SET, Kind, Obj
from pytest_pgo_eks.local.operator import names, pgbackrest, scripts
from pytest_pgo_eks.local.operator.desired import Cluster, Images
from pytest_pgo_eks.local.operator.pods import (
    container,
    data_selector,
    from_config_map,
    from_secret,
    mount,
    projected,
    scheduling,
    scratch,
    security,
    spread,
)

Rendered = tuple[Kind, Obj]

_TLS = mount("cert-volume", "/pgconf/tls", read_only=True)
_DATA = mount("postgres-data", "/pgdata")
_WAL = mount("postgres-wal", "/pgwal")
_TMP = mount("tmp", "/tmp")  # noqa: S108 - PGO's own path


def claim(cluster: Cluster, instance_set: Obj, instance: str, role: str = "pgdata") -> Rendered:
    """Return the claim of an instance's data (``pgdata``) or WAL (``pgwal``)."""
    field = "dataVolumeClaimSpec" if role == "pgdata" else "walVolumeClaimSpec"
    own = {
        names.INSTANCE_SET: instance_set["name"],
        names.INSTANCE: instance,
        names.ROLE: role,
        names.DATA: "postgres",
    }
    metadata = cluster.metadata(f"{instance}-{role}", own, instance_set.get("metadata"))
    return volume_claim(metadata, instance_set[field])


def volume_claim(metadata: Obj, given: Obj) -> Rendered:
    """Return a claim as the user specified it; limits and autoGrow are the operator's business."""
    spec = {name: value for name, value in given.items() if name != "autoGrow"}
    resources = {k: v for k, v in (spec.get("resources") or {}).items() if k != "limits"}
    return CLAIM, {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": spec | {"resources": resources},
    }


def stateful_set(
    cluster: Cluster, instance_set: Obj, instance: str, images: Images, *, replicas: int = 1
) -> Rendered:
    """Return the StatefulSet of one instance. Its pod is ``INSTANCE-0``."""
    selector = {
        names.CLUSTER: cluster.name,
        names.INSTANCE_SET: instance_set["name"],
        names.INSTANCE: instance,
    }
    own = {
        names.INSTANCE_SET: instance_set["name"],
        names.INSTANCE: instance,
        names.DATA: "postgres",
    }
    block = instance_set.get("metadata")
    template_labels = cluster.labels(own | {names.PATRONI: cluster.patroni_scope}, block)
    notes = cluster.notes({names.DEFAULT_CONTAINER: names.DATABASE}, block)
    return STATEFUL_SET, {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": cluster.metadata(instance, own, block),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": selector},
            "serviceName": f"{cluster.name}-pods",
            "updateStrategy": {"type": "OnDelete"},
            "template": {
                "metadata": {"labels": template_labels, "annotations": notes},
                "spec": _pod(cluster, instance_set, instance, images),
            },
        },
    }


def _pod(cluster: Cluster, instance_set: Obj, instance: str, images: Images) -> Obj:
    wal = bool(instance_set.get("walVolumeClaimSpec"))
    data = [_DATA, _WAL] if wal else [_DATA]
    image = images.postgres(cluster)
    containers = [
        _database(cluster, instance_set, image, data),
        container(
            "replication-cert-copy",
            image,
            scripts.command(
                scripts.COPY_REPLICATION_CERTIFICATE, "replication-cert-copy", "/pgconf/tls"
            ),
            [_TLS, *data, _TMP],
            cluster,
        ),
        *(instance_set.get("containers") or []),
    ]
    volumes = [_certificates(cluster), _claimed("postgres-data", f"{instance}-pgdata")]
    if wal:
        volumes.append(_claimed("postgres-wal", f"{instance}-pgwal"))
    volumes.append(_container_info())
    config_files = (cluster.spec.get("config") or {}).get("files")
    if config_files:
        volumes.append(projected("postgres-config", config_files))
    if cluster.pgbackrest is not None:
        containers += pgbackrest.sidecars(cluster, images, data)
        volumes += pgbackrest.instance_volumes(cluster, instance)
    volumes += [_patroni(cluster, instance), scratch()]
    volumes.append({"name": "dshm", "emptyDir": {"medium": "Memory"}})
    return {
        "containers": containers,
        "initContainers": [
            _startup(cluster, instance_set, image, data),
            container("nss-wrapper-init", image, ["id", "-un"], [_TMP], cluster),
        ],
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "securityContext": security(cluster, 26),
        "serviceAccountName": f"{cluster.name}-instance",
        "shareProcessNamespace": True,
        "topologySpreadConstraints": spread(cluster, data_selector(cluster), instance_set),
        "volumes": volumes,
    } | scheduling(cluster, instance_set)


def _database(cluster: Cluster, instance_set: Obj, image: str, data: list[Obj]) -> Obj:
    mounts = [
        _TLS,
        *data,
        mount("database-containerinfo", "/etc/database-containerinfo", read_only=True),
    ]
    if (cluster.spec.get("config") or {}).get("files"):
        mounts.append(mount("postgres-config", "/etc/postgres", read_only=True))
    if cluster.pgbackrest is not None:
        mounts.append(mount("pgbackrest-config", "/etc/pgbackrest/conf.d", read_only=True))
    mounts += [
        mount("patroni-config", "/etc/patroni", read_only=True),
        _TMP,
        mount("dshm", "/dev/shm"),  # noqa: S108 - PGO's own path
    ]
    return container(
        names.DATABASE,
        image,
        _patroni_command(cluster),
        mounts,
        cluster,
        env=_environment(cluster) + _patroni_environment(cluster),
        ports=[{"name": "postgres", "containerPort": cluster.port, "protocol": "TCP"}],
        resources=instance_set.get("resources"),
        livenessProbe=_probe(cluster, "/liveness"),
        readinessProbe=_probe(cluster, "/readiness"),
    )


def _patroni_command(cluster: Cluster) -> list[str]:
    direct = ["patroni", "/etc/patroni"]
    if not cluster.release.path_wrapper:
        return direct
    version = cluster.postgres_version
    places = (
        f"/usr/lib/postgresql/{version}/bin:/usr/libexec/postgresql{version}:"
        f"/usr/pgsql-{version}/bin"
    )
    return ["sh", "-c", "--", f'PATH="{places}${{PATH+:${{PATH}}}}" && exec "$@"', "--", *direct]


def _startup(cluster: Cluster, instance_set: Obj, image: str, data: list[Obj]) -> Obj:
    made = ["/pgdata/patroni/log"]
    if cluster.pgbackrest is not None:
        made.append("/pgdata/pgbackrest/log")
    if cluster.release.log_parameters:
        made.insert(0, "/pgdata/logs/postgres")
    command = scripts.command(
        scripts.STARTUP,
        "startup",
        str(cluster.postgres_version),
        cluster.wal_directory(instance_set),
        "0750" if cluster.release.group_access else "0700",
        *made,
    )
    return container(
        "postgres-startup",
        image,
        command,
        [_TLS, *data, _TMP],
        cluster,
        env=_environment(cluster),
        resources=instance_set.get("resources"),
    )


def _environment(cluster: Cluster) -> list[Obj]:
    values = {
        "PGDATA": cluster.data_directory,
        "PGHOST": "/tmp/postgres",  # noqa: S108 - PGO's own path
        "PGPORT": str(cluster.port),
        "KRB5_CONFIG": "/etc/postgres/krb5.conf",
        "KRB5RCACHEDIR": "/tmp",  # noqa: S108 - PGO's own path
        "LDAPTLS_CACERT": "/etc/postgres/ldap/ca.crt",
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def _patroni_environment(cluster: Cluster) -> list[Obj]:
    pod = f"$(PATRONI_NAME).{cluster.name}-pods"
    ports = f"- name: postgres\n  port: {cluster.port}\n  protocol: TCP\n"
    values = {
        "PATRONI_KUBERNETES_PORTS": ports,
        "PATRONI_POSTGRESQL_CONNECT_ADDRESS": f"{pod}:{cluster.port}",
        "PATRONI_POSTGRESQL_LISTEN": f"*:{cluster.port}",
        "PATRONI_POSTGRESQL_CONFIG_DIR": cluster.data_directory,
        "PATRONI_POSTGRESQL_DATA_DIR": cluster.data_directory,
        "PATRONI_RESTAPI_CONNECT_ADDRESS": f"{pod}:{cluster.patroni_port}",
        "PATRONI_RESTAPI_LISTEN": f"*:{cluster.patroni_port}",
        "PATRONICTL_CONFIG_FILE": "/etc/patroni",
    }
    return [
        _from_field("PATRONI_NAME", "metadata.name"),
        _from_field("PATRONI_KUBERNETES_POD_IP", "status.podIP"),
        *({"name": name, "value": value} for name, value in values.items()),
    ]


def _from_field(name: str, path: str) -> Obj:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def _probe(cluster: Cluster, path: str) -> Obj:
    """Return a probe of Patroni that fails after one lease: period and count follow the timings."""
    return {
        "failureThreshold": max(1, cluster.lease_s // cluster.sync_s),
        "httpGet": {"path": path, "port": cluster.patroni_port, "scheme": "HTTPS"},
        "initialDelaySeconds": 3,
        "periodSeconds": cluster.sync_s,
        "successThreshold": 1,
        "timeoutSeconds": max(1, cluster.sync_s // 2),
    }


def _certificates(cluster: Cluster) -> Obj:
    """Return the server's TLS files and, below ``replication``, those of ``_crunchyrepl``."""
    files = ("tls.crt", "tls.key", "ca.crt")
    sources = []
    for field, default, folder in (
        ("customTLSSecret", f"{cluster.name}-cluster-cert", ""),
        ("customReplicationTLSSecret", f"{cluster.name}-replication-cert", "replication/"),
    ):
        given = cluster.spec.get(field) or {}
        chosen = {i["path"]: i["key"] for i in given.get("items") or []}
        items = {chosen.get(file, file): f"{folder}{file}" for file in files}
        sources.append(from_secret(given.get("name") or default, items))
    return projected("cert-volume", sources, 0o600)


def _claimed(name: str, claim_name: str) -> Obj:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim_name}}


def _container_info() -> Obj:
    """Return the downward API files with the database container's resources and the pod's labels."""
    numbers = {
        "cpu_limit": "limits.cpu",
        "cpu_request": "requests.cpu",
        "mem_limit": "limits.memory",
        "mem_request": "requests.memory",
    }
    items: list[Obj] = [
        {
            "path": path,
            "resourceFieldRef": {
                "containerName": names.DATABASE,
                "resource": resource,
                "divisor": "0",
            },
        }
        for path, resource in numbers.items()
    ]
    items += [
        {"path": path, "fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.{path}"}}
        for path in ("labels", "annotations")
    ]
    return {"name": "database-containerinfo", "downwardAPI": {"items": items}}


def _patroni(cluster: Cluster, instance: str) -> Obj:
    own = "~postgres-operator"
    return projected(
        "patroni-config",
        [
            from_config_map(f"{cluster.name}-config", {"patroni.yaml": f"{own}_cluster.yaml"}),
            from_config_map(f"{instance}-config", {"patroni.yaml": f"{own}_instance.yaml"}),
            from_secret(
                f"{instance}-certs",
                {
                    "patroni.ca-roots": f"{own}/patroni.ca-roots",
                    "patroni.crt-combined": f"{own}/patroni.crt+key",
                },
            ),
        ],
    )
