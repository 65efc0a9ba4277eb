"""pgBackRest: configuration files, the repository host, sidecars, backup Jobs and CronJobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_pgo_eks.local.objects import (
    CONFIG_MAP,
    CRON_JOB,
    JOB,
    STATEFUL_SET,
    Kind,
    Obj,
)
from pytest_pgo_eks.local.operator import names, scripts
from pytest_pgo_eks.local.operator.desired import Cluster, Images
from pytest_pgo_eks.local.operator.patroni import GENERATED
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
from pytest_pgo_eks.local.operator.tls import backrest_client

Rendered = tuple[Kind, Obj]

STANZA = "db"
# Of an empty list of cloud repositories: the only kind of option it covers.
CONFIG_HASH = names.short_hash("")
_CONF = "/etc/pgbackrest/conf.d"
_SERVER = "/etc/pgbackrest/server"
_OWN = "~postgres-operator"
_TLS = f"{_CONF}/{_OWN}"
SCHEDULES = {"full": "full", "differential": "diff", "incremental": "incr"}


def repo_host(cluster: Cluster) -> str:
    return f"{cluster.name}-repo-host"


def own_labels(**more: str) -> dict[str, str]:
    return {names.BACKREST: ""} | more


def selector(cluster: Cluster) -> dict[str, str]:
    """Return the labels by which a backup Job finds the repository host's pod."""
    return {names.CLUSTER: cluster.name, names.BACKREST: "", names.BACKREST_DEDICATED: ""}


def config_map(cluster: Cluster, instances: Sequence[str]) -> Rendered:
    """Return ``hippo-pgbackrest-config`` for the instances of these names."""
    own = {names.BACKREST: "", names.BACKREST_CONFIG: ""}
    name = f"{cluster.name}-pgbackrest-config"
    data = {
        "config-hash": CONFIG_HASH,
        "pgbackrest-server.conf": _server_file(cluster),
        "pgbackrest_instance.conf": _instance_file(cluster),
    }
    if cluster.repos:
        data["pgbackrest_repo.conf"] = _repo_file(cluster, instances)
    return CONFIG_MAP, {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": cluster.metadata(name, own, (cluster.pgbackrest or {}).get("metadata")),
        "data": data,
    }


def _globals(cluster: Cluster) -> dict[str, str]:
    given: dict[str, str] = (cluster.pgbackrest or {}).get("global") or {}
    return given


def _instance_file(cluster: Cluster) -> str:
    shared = {
        "archive-async": "y",
        "log-path": "/pgdata/pgbackrest/log",
        "spool-path": "/pgdata/pgbackrest-spool",
    }
    pod = f"{repo_host(cluster)}-0"
    for repo in cluster.repos:
        name = repo["name"]
        shared[f"{name}-path"] = f"/pgbackrest/{name}"
        shared[f"{name}-host"] = cluster.dns_names(f"{cluster.name}-pods", pod)[0]
        shared[f"{name}-host-type"] = "tls"
        shared[f"{name}-host-user"] = "postgres"
        shared |= _client_files(f"{name}-host")
    return _ini({"global": shared | _globals(cluster), STANZA: _database(cluster, 1)})


def _repo_file(cluster: Cluster, instances: Sequence[str]) -> str:
    shared = {"log-path": f"/pgbackrest/{cluster.repos[0]['name']}/log"}
    shared |= {f"{repo['name']}-path": f"/pgbackrest/{repo['name']}" for repo in cluster.repos}
    hosts: dict[str, str] = {}
    for number, instance in enumerate(sorted(instances), start=1):
        name = cluster.dns_names(f"{cluster.name}-pods", f"{instance}-0")[0]
        hosts |= {f"pg{number}-host": name, f"pg{number}-host-type": "tls"}
        hosts |= _client_files(f"pg{number}-host") | _database(cluster, number)
    return _ini({"global": shared | _globals(cluster), STANZA: hosts})


def _server_file(cluster: Cluster) -> str:
    everywhere = cluster.annotations.get(names.BACKREST_IP_VERSION) == "IPv6"
    return _ini(
        {
            "global": {
                "tls-server-address": "::" if everywhere else "0.0.0.0",  # noqa: S104
                "tls-server-auth": f"{backrest_client(cluster)}=*",
                "tls-server-ca-file": f"{_TLS}/tls-ca.crt",
                "tls-server-cert-file": f"{_SERVER}/server-tls.crt",
                "tls-server-key-file": f"{_SERVER}/server-tls.key",
            },
            "global:server": {
                "log-level-console": "detail",
                "log-level-file": "off",
                "log-level-stderr": "error",
                "log-timestamp": "n",
            },
        }
    )


def _client_files(prefix: str) -> dict[str, str]:
    return {
        f"{prefix}-ca-file": f"{_TLS}/tls-ca.crt",
        f"{prefix}-cert-file": f"{_TLS}/client-tls.crt",
        f"{prefix}-key-file": f"{_TLS}/client-tls.key",
    }


def _database(cluster: Cluster, number: int) -> dict[str, str]:
    return {
        f"pg{number}-path": cluster.data_directory,
        f"pg{number}-port": str(cluster.port),
        f"pg{number}-socket-path": "/tmp/postgres",  # noqa: S108 - PGO's own path
    }


def _ini(sections: Mapping[str, Mapping[str, str]]) -> str:
    parts = [GENERATED]
    for name, options in sections.items():
        lines = [f"{key} = {value}" for key, value in sorted(options.items())]
        parts.append("\n".join([f"[{name}]", *lines]) + "\n")
    return "\n".join(parts)


def instance_volumes(cluster: Cluster, instance: str) -> list[Obj]:
    """Return the two volumes an instance needs. The client's certificate may come later."""
    server = {
        "pgbackrest-server.crt": "server-tls.crt",
        "pgbackrest-server.key": "server-tls.key",
    }
    return [
        projected("pgbackrest-server", [from_secret(f"{instance}-certs", server)]),
        _configuration(cluster, "pgbackrest_instance.conf", optional=True),
    ]


def _configuration(cluster: Cluster, file: str, *, optional: bool = False) -> Obj:
    files = {
        file: file,
        "config-hash": "config-hash",
        "pgbackrest-server.conf": f"{_OWN}_server.conf",
    }
    tls = {
        "pgbackrest.ca-roots": f"{_OWN}/tls-ca.crt",
        "pgbackrest-client.crt": f"{_OWN}/client-tls.crt",
        "pgbackrest-client.key": f"{_OWN}/client-tls.key",
    }
    sources = [
        *((cluster.pgbackrest or {}).get("configuration") or []),
        from_config_map(f"{cluster.name}-pgbackrest-config", files),
        from_secret(f"{cluster.name}-pgbackrest", tls, optional=optional),
    ]
    return projected("pgbackrest-config", sources)


def sidecars(
    cluster: Cluster,
    images: Images,
    data: Sequence[Obj],
    *,
    seen: Sequence[Obj] = (),
    resources: Obj | None = None,
) -> list[Obj]:
    """Return pgBackRest's TLS server and the loop that makes it read changed files.

    ``data`` is mounted in the server, ``seen`` in the loop.
    """
    image = images.pgbackrest(cluster)
    tmp = mount("tmp", "/tmp")  # noqa: S108 - PGO's own path
    server = mount("pgbackrest-server", _SERVER, read_only=True)
    config = mount("pgbackrest-config", _CONF, read_only=True)
    ping = {
        "exec": {"command": ["pgbackrest", "server-ping"]},
        "failureThreshold": 3,
        "periodSeconds": 10,
        "successThreshold": 1,
        "timeoutSeconds": 1,
    }
    return [
        container(
            "pgbackrest",
            image,
            ["pgbackrest", "server"],
            [server, *data, config, tmp],
            cluster,
            livenessProbe=ping,
            resources=resources,
        ),
        container(
            "pgbackrest-config",
            image,
            scripts.command(scripts.RELOAD_PGBACKREST, "pgbackrest-config", _SERVER, _CONF),
            [server, *seen, config, tmp],
            cluster,
        ),
    ]


def repo_claim_metadata(cluster: Cluster, repo: Obj) -> Obj:
    own = own_labels() | {
        names.BACKREST_REPO: repo["name"],
        names.BACKREST_VOLUME: "",
        names.DATA: "pgbackrest",
    }
    block = (cluster.pgbackrest or {}).get("metadata")
    return cluster.metadata(f"{cluster.name}-{repo['name']}", own, block)


def repo_host_set(cluster: Cluster, images: Images, *, replicas: int = 1) -> Rendered:
    """Return the StatefulSet of the repository host."""
    block = (cluster.pgbackrest or {}).get("metadata")
    given = (cluster.pgbackrest or {}).get("repoHost") or {}
    own = own_labels() | {names.BACKREST_DEDICATED: "", names.DATA: "pgbackrest"}
    note = {names.DEFAULT_CONTAINER: "pgbackrest"}
    name = repo_host(cluster)
    volumes = [mount(repo["name"], f"/pgbackrest/{repo['name']}") for repo in cluster.repos]
    secret = {
        "pgbackrest-repo-host.crt": "server-tls.crt",
        "pgbackrest-repo-host.key": "server-tls.key",
    }
    image = images.pgbackrest(cluster)
    tmp = mount("tmp", "/tmp")  # noqa: S108 - PGO's own path
    folder = f"/pgbackrest/{cluster.repos[0]['name']}/log"
    pod: Obj = {
        "automountServiceAccountToken": cluster.release.repo_host_role,
        "containers": sidecars(
            cluster,
            images,
            volumes,
            seen=volumes if cluster.release.repo_host_role else (),
            resources=given.get("resources"),
        ),
        "initContainers": [
            container(
                "pgbackrest-log-dir",
                image,
                ["bash", "-c", f"mkdir -p '{folder}' && chmod 0775 '{folder}'"],
                [*volumes, tmp],
                cluster,
            ),
            container("nss-wrapper-init", image, ["id", "-un"], [tmp], cluster),
        ],
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "securityContext": security(cluster, 26),
        "serviceAccountName": f"{cluster.name}-repohost",
        "shareProcessNamespace": True,
        "topologySpreadConstraints": spread(cluster, data_selector(cluster), given),
        "volumes": [
            projected("pgbackrest-server", [from_secret(f"{cluster.name}-pgbackrest", secret)]),
            *(
                {
                    "name": repo["name"],
                    "persistentVolumeClaim": {"claimName": f"{cluster.name}-{repo['name']}"},
                }
                for repo in cluster.repos
            ),
            _configuration(cluster, "pgbackrest_repo.conf"),
            scratch(),
        ],
    }
    return STATEFUL_SET, {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": cluster.metadata(name, own, block, annotations=note),
        "spec": {
            "podManagementPolicy": "Parallel",
            "replicas": replicas,
            "selector": {"matchLabels": selector(cluster)},
            "serviceName": f"{cluster.name}-pods",
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {
                    "labels": cluster.labels(own, block),
                    "annotations": cluster.notes(note, block),
                },
                "spec": pod | scheduling(cluster, given),
            },
        },
    }


def _job_template(
    cluster: Cluster, images: Images, options: str, own: Mapping[str, str], notes: Mapping[str, str]
) -> Obj:
    block = (cluster.pgbackrest or {}).get("metadata")
    jobs = (cluster.pgbackrest or {}).get("jobs") or {}
    labels = ",".join(f"{name}={value}" for name, value in selector(cluster).items())
    values = {
        "COMMAND": "backup",
        "COMMAND_OPTS": options,
        "COMPARE_HASH": "true",
        "CONTAINER": "pgbackrest",
        "NAMESPACE": cluster.namespace,
        "SELECTOR": labels,
    }
    pod: Obj = {
        "containers": [
            container(
                "pgbackrest",
                images.pgbackrest(cluster),
                ["/opt/crunchy/bin/pgbackrest"],
                [mount("pgbackrest-config", _CONF, read_only=True)],
                cluster,
                env=[{"name": name, "value": value} for name, value in values.items()],
                resources=jobs.get("resources"),
            )
        ],
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "securityContext": security(cluster, None),
        "serviceAccountName": f"{cluster.name}-pgbackrest",
        "volumes": [_configuration(cluster, "pgbackrest_repo.conf")],
    }
    spec: Obj = {
        "template": {
            "metadata": {
                "labels": cluster.labels(own, block, jobs.get("metadata")),
                "annotations": cluster.notes(
                    {names.DEFAULT_CONTAINER: "pgbackrest"} | dict(notes), block
                ),
            },
            "spec": pod | scheduling(cluster, jobs),
        }
    }
    if jobs.get("backoffLimit") is not None:
        spec["backoffLimit"] = jobs["backoffLimit"]
    if jobs.get("ttlSecondsAfterFinished") is not None:
        spec["ttlSecondsAfterFinished"] = jobs["ttlSecondsAfterFinished"]
    return spec


def _options(repo: Obj, *more: str) -> str:
    number = repo["name"].removeprefix("repo")
    return " ".join([f"--stanza={STANZA}", f"--repo={number}", *more])


def replica_create_job(cluster: Cluster, images: Images, name: str) -> Rendered:
    """Return the Job that takes the first full backup, from which replicas can be built."""
    own = _job_labels("replica-create", cluster.repos[0])
    notes = {names.BACKREST_CONFIG: "pgbackrest", names.BACKREST_HASH: CONFIG_HASH}
    return _job(cluster, images, name, _options(cluster.repos[0]), own=own, notes=notes)


def manual_job(cluster: Cluster, images: Images, name: str, repo: Obj, given: Obj) -> Rendered:
    """Return the Job of a backup the user asked for by annotation."""
    own = _job_labels("manual", repo)
    notes = {names.BACKREST_BACKUP: cluster.annotations[names.BACKREST_BACKUP]}
    options = _options(repo, *(given.get("options") or []))
    return _job(cluster, images, name, options, own=own, notes=notes)


def _job_labels(kind: str, repo: Obj) -> dict[str, str]:
    return {
        names.BACKREST: "",
        names.BACKREST_BACKUP: kind,
        names.BACKREST_REPO: repo["name"],
    }


def _job(
    cluster: Cluster,
    images: Images,
    name: str,
    options: str,
    *,
    own: Mapping[str, str],
    notes: Mapping[str, str],
) -> Rendered:
    block = (cluster.pgbackrest or {}).get("metadata")
    note = {names.DEFAULT_CONTAINER: "pgbackrest"} | dict(notes)
    return JOB, {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": cluster.metadata(name, own, block, annotations=note),
        "spec": _job_template(cluster, images, options, own, notes),
    }


def cron_jobs(cluster: Cluster, images: Images, *, suspended: bool) -> list[Rendered]:
    """Return one CronJob per schedule of each repository."""
    found: list[Rendered] = []
    for repo in cluster.repos:
        for field, kind in SCHEDULES.items():
            schedule = (repo.get("schedules") or {}).get(field)
            if not schedule:
                continue
            own = _job_labels("scheduled", repo) | {names.BACKREST_CRONJOB: kind}
            template = _job_template(cluster, images, _options(repo, f"--type={kind}"), own, {})
            block = (cluster.pgbackrest or {}).get("metadata")
            name = f"{cluster.name}-{repo['name']}-{kind}"
            labels = cluster.labels(own, block)
            found.append(
                (
                    CRON_JOB,
                    {
                        "apiVersion": "batch/v1",
                        "kind": "CronJob",
                        "metadata": cluster.metadata(name, own, block),
                        "spec": {
                            "concurrencyPolicy": "Forbid",
                            "jobTemplate": {"metadata": {"labels": labels}, "spec": template},
                            "schedule": schedule,
                            "suspend": suspended,
                        },
                    },
                )
            )
    return found
