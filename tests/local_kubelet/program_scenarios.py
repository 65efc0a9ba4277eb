"""The programs that the pods are for: PostgreSQL, Patroni, PgBouncer, pgBackRest, as PGO runs them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from kubelet_bed import SPACE, Bed, condition, phase

from pytest_pgo_eks.local.kubelet.images import newest_postgres_bin
from pytest_pgo_eks.local.objects import POD, ROLE, ROLE_BINDING, SERVICE_ACCOUNT, Obj

PGO = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
}
POD_CONTEXT = {"fsGroup": 26, "fsGroupChangePolicy": "OnRootMismatch"}


def major() -> str:
    found = newest_postgres_bin()
    assert found is not None
    return "".join(c for c in str(found) if c.isdigit())


async def postgres(bed: Bed) -> Any:
    """initdb, then a server of UID 26 that another pod reaches, then a SIGKILL and a restart."""
    mounts = [
        {"name": "data", "mountPath": "/pgdata"},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    volumes = [
        {"name": "data", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    image = f"stand-in/postgres:{major()}"
    common = {"image": image, "securityContext": PGO, "volumeMounts": mounts}
    initdb = "initdb -k -U postgres -A trust --no-sync /pgdata/pg >/dev/null && echo 'host all all all trust' >> /pgdata/pg/pg_hba.conf"
    serve = "mkdir -p /tmp/postgres; exec postgres -D /pgdata/pg -c listen_addresses='*' -c unix_socket_directories=/tmp/postgres"
    env = [
        {"name": "LD_PRELOAD", "value": "/usr/lib64/libnss_wrapper.so"},
        {"name": "PGHOST", "value": "/tmp/postgres"},
    ]
    began = time.monotonic()
    await bed.pod(
        "pg",
        {
            "command": ["bash", "-ceu", "--", serve],
            "env": env,
            "readinessProbe": {"exec": {"command": ["pg_isready"]}, "periodSeconds": 1},
            **common,
        },
        initContainers=[{"name": "startup", "command": ["bash", "-ceu", "--", initdb], **common}],
        shareProcessNamespace=True,
        securityContext=POD_CONTEXT,
        volumes=volumes,
        terminationGracePeriodSeconds=10,
    )
    pod = await bed.until("pg", lambda p: condition(p, "Ready") == "True")
    took = time.monotonic() - began
    assert (
        await bed.shell("pg", "id -un; id -u; psql -XAtU postgres -c 'select 1'")
    ) == "postgres\n26\n1\n"
    await bed.pod("client", {"image": "stand-in/python:3"}, node=2)
    await bed.running("client")
    dsn = f"host={pod['status']['podIP']} user=postgres connect_timeout=5"
    ask = f"psql -XAt '{dsn}' -c 'select count(*) from pg_stat_activity where client_addr is not null'"
    assert await bed.shell("client", ask) == "1\n"
    version = await bed.shell("pg", "patroni --version; pgbackrest version")
    assert version.startswith("patroni 4"), version
    assert "pgBackRest 2" in version
    # The postmaster is the container's own process here: its SIGKILL is the container's end.
    # The shell is of the container, too, and may not live to tell its exit status.
    await bed.exec("pg", "sh", "-c", "kill -9 $(head -1 /pgdata/pg/postmaster.pid)")
    await bed.until("pg", lambda p: p["status"]["containerStatuses"][0]["restartCount"] == 1)
    await bed.until("pg", lambda p: condition(p, "Ready") == "True")
    await bed.api.delete(POD, "pg", SPACE)
    await bed.gone("pg")
    return took


async def pgbouncer(bed: Bed) -> None:
    """PgBouncer listens on 5432 of its own address and reloads at a SIGHUP from a sidecar."""
    ini = "[pgbouncer]\nlisten_addr=*\nlisten_port=5432\nauth_type=any\nunix_socket_dir=\n[databases]\n*=host=127.0.0.1\n"
    await bed.config("bouncer", {"pgbouncer.ini": ini})
    volumes = [
        {
            "name": "conf",
            "projected": {
                "sources": [
                    {
                        "configMap": {
                            "name": "bouncer",
                            "items": [{"key": "pgbouncer.ini", "path": "~postgres-operator.ini"}],
                        }
                    }
                ]
            },
        },
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts = [
        {"name": "conf", "mountPath": "/etc/pgbouncer", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    common = {"image": "stand-in/pgbouncer:1", "securityContext": PGO, "volumeMounts": mounts}
    run = [
        "sh",
        "-c",
        "--",
        'exec "$@"',
        "--",
        "pgbouncer",
        "/etc/pgbouncer/~postgres-operator.ini",
    ]
    await bed.pod(
        "bouncer",
        {
            "command": run,
            "readinessProbe": {"tcpSocket": {"port": 5432}, "periodSeconds": 1},
            **common,
        },
        {"command": ["bash", "-c", "sleep 1000"], **common},
        shareProcessNamespace=True,
        volumes=volumes,
    )
    await bed.until("bouncer", lambda p: condition(p, "Ready") == "True")
    await bed.shell("bouncer", "pkill -HUP --exact --parent=0 pgbouncer", container="c1")
    end = time.monotonic() + 20
    while "got SIGHUP" not in await bed.logs("bouncer", container="c0"):
        assert time.monotonic() < end, await bed.logs("bouncer", container="c0")
        await asyncio.sleep(0.05)


async def backup_job(bed: Bed) -> None:
    """PGO's backup Job finds the repository host and runs pgBackRest there."""
    account = {"metadata": {"name": "backup", "namespace": SPACE}}
    await bed.api.create(SERVICE_ACCOUNT, account)
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]},
    ]
    await bed.api.create(ROLE, {**account, "rules": rules})
    binding = {
        **account,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "backup"},
        "subjects": [{"kind": "ServiceAccount", "name": "backup"}],
    }
    await bed.api.create(ROLE_BINDING, binding)
    await bed.config("repo-conf", {"pgbackrest.conf": "[global]\nlog-level-file=off\n"})
    volumes = [{"name": "conf", "configMap": {"name": "repo-conf"}}]
    common: Obj = {
        "image": "stand-in/pgbackrest:2",
        "securityContext": PGO,
        "volumeMounts": [{"name": "conf", "mountPath": "/etc/pgbackrest/conf.d", "readOnly": True}],
    }
    await bed.pod("repo", {"command": ["sleep", "1000"], **common}, volumes=volumes)
    await bed.running("repo")

    async def job(name: str, **env: str) -> Obj:
        given = {
            "COMMAND": "version",
            "COMMAND_OPTS": "",
            "COMPARE_HASH": "true",
            "CONTAINER": "c0",
            "NAMESPACE": SPACE,
            "SELECTOR": "app=repo",
        } | env
        one = {
            "command": ["/opt/crunchy/bin/pgbackrest"],
            "env": [{"name": k, "value": v} for k, v in given.items()],
            **common,
        }
        await bed.pod(
            name,
            one,
            volumes=volumes,
            restartPolicy="Never",
            serviceAccountName="backup",
            automountServiceAccountToken=True,
        )
        return await bed.until(name, lambda p: phase(p) in {"Succeeded", "Failed"})

    done = await job("job")
    said = await bed.logs("job")
    assert phase(done) == "Succeeded", said
    assert "pgBackRest 2" in said
    failed = await job("job-bad", COMMAND="backup", COMMAND_OPTS="--stanza=nowhere --repo=1")
    assert failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] != 0
    nobody = await job("job-lost", SELECTOR="app=nobody")
    assert phase(nobody) == "Failed"
    assert "found 0 pods by app=nobody" in await bed.logs("job-lost")
