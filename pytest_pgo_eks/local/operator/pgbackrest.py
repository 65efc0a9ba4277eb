"""pgBackRest: configuration files, the repository host, and the sidecars of every instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_pgo_eks.local.objects import (
    CONFIG_MAP,
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
CONF = "/etc/pgbackrest/conf.d"
_SERVER = "/etc/pgbackrest/server"
_OWN = "~postgres-operator"
_TLS = f"{CONF}/{_OWN}"


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
        configuration(cluster, "pgbackrest_instance.conf", optional=True),
    ]


def configuration(cluster: Cluster, file: str, *, optional: bool = False) -> Obj:
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
    config = mount("pgbackrest-config", CONF, read_only=True)
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
            scripts.command(scripts.RELOAD_PGBACKREST, "pgbackrest-config", _SERVER, CONF),
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
            configuration(cluster, "pgbackrest_repo.conf"),
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
