"""What PGO makes of one cluster, as recordings of PGO 6.0.3 and 5.8.9 show it, in our own table.

The cluster: ``hippo`` in ``postgres-operator``, set ``pg-1`` with the instances ``aaaa``, ``bbbb``
and ``cccc``, users ``replicator`` (REPLICATION) and ``app`` of database ``testdb``, PgBouncer, one
repository on a volume.
"""

from __future__ import annotations

P = "postgres-operator.crunchydata.com/"
INSTANCES = ("hippo-pg-1-aaaa", "hippo-pg-1-bbbb", "hippo-pg-1-cccc")


def _of(instance: str, **more: str) -> dict[str, str]:
    return {"instance": instance, "instance-set": "pg-1"} | more


_BACKREST = {"pgbackrest": ""}

# (kind, name) -> labels beyond cluster=hippo, without the prefix. None: the object has no labels.
LABELS: dict[tuple[str, str], dict[str, str] | None] = {
    ("ConfigMap", "hippo-config"): {},
    ("ConfigMap", "hippo-pgbackrest-config"): _BACKREST | {"pgbackrest-config": ""},
    ("ConfigMap", "hippo-pgbouncer"): {"role": "pgbouncer"},
    ("Deployment", "hippo-pgbouncer"): {"role": "pgbouncer"},
    ("Endpoints", "hippo-primary"): {"role": "primary"},
    ("Job", "hippo-backup-zzzz"): _BACKREST
    | {"pgbackrest-backup": "replica-create", "pgbackrest-repo": "repo1"},
    ("PersistentVolumeClaim", "hippo-repo1"): _BACKREST
    | {"data": "pgbackrest", "pgbackrest-repo": "repo1", "pgbackrest-volume": ""},
    ("PodDisruptionBudget", "hippo-set-pg-1"): {"instance-set": "pg-1"},
    ("Role", "hippo-instance"): {},
    ("Role", "hippo-pgbackrest"): _BACKREST,
    ("Role", "hippo-repohost"): _BACKREST,
    ("RoleBinding", "hippo-instance"): {},
    ("RoleBinding", "hippo-pgbackrest"): _BACKREST,
    ("RoleBinding", "hippo-repohost"): _BACKREST,
    ("Secret", "hippo-cluster-cert"): {"cluster-certificate": "postgres-tls"},
    ("Secret", "hippo-pgbackrest"): _BACKREST | {"pgbackrest-config": ""},
    ("Secret", "hippo-pgbouncer"): {"role": "pgbouncer"},
    ("Secret", "hippo-pguser-app"): {"pguser": "app", "role": "pguser"},
    ("Secret", "hippo-pguser-replicator"): {"pguser": "replicator", "role": "pguser"},
    ("Secret", "hippo-replication-cert"): {"cluster-certificate": "replication-client-tls"},
    ("Secret", "pgo-root-cacert"): None,
    ("Service", "hippo-ha"): {"patroni": "hippo-ha"},
    ("Service", "hippo-ha-config"): {"patroni": "hippo-ha"},
    ("Service", "hippo-pgbouncer"): {"role": "pgbouncer"},
    ("Service", "hippo-pods"): {},
    ("Service", "hippo-primary"): {"role": "primary"},
    ("Service", "hippo-replicas"): {"role": "replica"},
    ("ServiceAccount", "hippo-instance"): {},
    ("ServiceAccount", "hippo-pgbackrest"): _BACKREST,
    ("ServiceAccount", "hippo-repohost"): _BACKREST,
    ("StatefulSet", "hippo-repo-host"): _BACKREST
    | {"data": "pgbackrest", "pgbackrest-dedicated": ""},
}
for _instance in INSTANCES:
    LABELS |= {
        ("ConfigMap", f"{_instance}-config"): _of(_instance),
        ("Secret", f"{_instance}-certs"): _of(_instance),
        ("PersistentVolumeClaim", f"{_instance}-pgdata"): _of(
            _instance, data="postgres", role="pgdata"
        ),
        ("StatefulSet", _instance): _of(_instance, data="postgres"),
    }

ONLY_6_0 = {("Role", "hippo-repohost"), ("RoleBinding", "hippo-repohost")}

SECRET_KEYS = {
    "pgo-root-cacert": {"root.crt", "root.key"},
    "hippo-cluster-cert": {"ca.crt", "tls.crt", "tls.key"},
    "hippo-replication-cert": {"ca.crt", "tls.crt", "tls.key"},
    "hippo-pg-1-aaaa-certs": {
        "dns.crt",
        "dns.key",
        "patroni.ca-roots",
        "patroni.crt-combined",
        "pgbackrest-server.crt",
        "pgbackrest-server.key",
    },
    "hippo-pgbackrest": {
        "pgbackrest-client.crt",
        "pgbackrest-client.key",
        "pgbackrest-repo-host.crt",
        "pgbackrest-repo-host.key",
        "pgbackrest.ca-roots",
    },
    "hippo-pgbouncer": {
        "pgbouncer-frontend.ca-roots",
        "pgbouncer-frontend.crt",
        "pgbouncer-frontend.key",
        "pgbouncer-password",
        "pgbouncer-users.txt",
        "pgbouncer-verifier",
    },
    "hippo-pguser-app": {
        "dbname",
        "host",
        "jdbc-uri",
        "password",
        "pgbouncer-host",
        "pgbouncer-jdbc-uri",
        "pgbouncer-port",
        "pgbouncer-uri",
        "port",
        "uri",
        "user",
        "verifier",
    },
}

# Service -> (headless, selector without the cluster label, port name or "")
SERVICES: dict[str, tuple[bool, dict[str, str] | None, str]] = {
    "hippo-pods": (True, {}, ""),
    "hippo-ha": (False, None, "postgres"),
    "hippo-ha-config": (True, None, ""),
    "hippo-primary": (True, None, "postgres"),
    "hippo-replicas": (False, {"role": "replica"}, "postgres"),
    "hippo-pgbouncer": (False, {"role": "pgbouncer"}, "pgbouncer"),
}

# Pod template -> (init containers, containers, mounts of its first container)
CONTAINERS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "hippo-pg-1-aaaa": (
        ["postgres-startup", "nss-wrapper-init"],
        ["database", "replication-cert-copy", "pgbackrest", "pgbackrest-config"],
        [
            "/pgconf/tls",
            "/pgdata",
            "/etc/database-containerinfo",
            "/etc/pgbackrest/conf.d",
            "/etc/patroni",
            "/tmp",
            "/dev/shm",
        ],
    ),
    "hippo-repo-host": (
        ["pgbackrest-log-dir", "nss-wrapper-init"],
        ["pgbackrest", "pgbackrest-config"],
        ["/etc/pgbackrest/server", "/pgbackrest/repo1", "/etc/pgbackrest/conf.d", "/tmp"],
    ),
    "hippo-pgbouncer": ([], ["pgbouncer", "pgbouncer-config"], ["/etc/pgbouncer", "/tmp"]),
}

DATABASE_ENVIRONMENT = {
    "PGDATA": "/pgdata/pg16",
    "PGHOST": "/tmp/postgres",
    "PGPORT": "5432",
    "KRB5_CONFIG": "/etc/postgres/krb5.conf",
    "KRB5RCACHEDIR": "/tmp",
    "LDAPTLS_CACERT": "/etc/postgres/ldap/ca.crt",
    "PATRONI_NAME": "metadata.name",
    "PATRONI_KUBERNETES_POD_IP": "status.podIP",
    "PATRONI_KUBERNETES_PORTS": "- name: postgres\n  port: 5432\n  protocol: TCP\n",
    "PATRONI_POSTGRESQL_CONNECT_ADDRESS": "$(PATRONI_NAME).hippo-pods:5432",
    "PATRONI_POSTGRESQL_LISTEN": "*:5432",
    "PATRONI_POSTGRESQL_CONFIG_DIR": "/pgdata/pg16",
    "PATRONI_POSTGRESQL_DATA_DIR": "/pgdata/pg16",
    "PATRONI_RESTAPI_CONNECT_ADDRESS": "$(PATRONI_NAME).hippo-pods:8008",
    "PATRONI_RESTAPI_LISTEN": "*:8008",
    "PATRONICTL_CONFIG_FILE": "/etc/patroni",
}

HBA = [
    'local all "postgres" "peer"',
    'hostssl replication "_crunchyrepl" all "cert"',
    'hostssl "postgres" "_crunchyrepl" all "cert"',
    'host all "_crunchyrepl" all "reject"',
    'hostssl all "_crunchypgbouncer" all "scram-sha-256"',
    'host all "_crunchypgbouncer" all "reject"',
    'hostssl all all all "scram-sha-256"',
]

PARAMETERS = {
    "archive_command": 'pgbackrest --stanza=db archive-push "%p"',
    "archive_mode": "on",
    "archive_timeout": "60s",
    "huge_pages": "off",
    "jit": "off",
    "log_directory": "/pgdata/logs/postgres",
    "log_file_mode": "0660",
    "max_connections": "100",
    "password_encryption": "scram-sha-256",
    "restore_command": 'pgbackrest --stanza=db archive-get %f "%p"',
    "shared_preload_libraries": "pgaudit",
    "ssl": "on",
    "ssl_ca_file": "/pgconf/tls/ca.crt",
    "ssl_cert_file": "/pgconf/tls/tls.crt",
    "ssl_key_file": "/pgconf/tls/tls.key",
    "unix_socket_directories": "/tmp/postgres",
    "wal_keep_size": "64MB",
    "wal_level": "logical",
}
