"""PgBouncer: configuration, Secret, Deployment, and what it needs inside the databases."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_pgo_eks.local.objects import CONFIG_MAP, DEPLOYMENT, Kind, Obj
from pytest_pgo_eks.local.operator import names, passwords, scripts
from pytest_pgo_eks.local.operator.certificates import KeyPair
from pytest_pgo_eks.local.operator.desired import Cluster, Images
from pytest_pgo_eks.local.operator.patroni import GENERATED
from pytest_pgo_eks.local.operator.pods import (
    container,
    from_config_map,
    from_secret,
    mount,
    projected,
    scheduling,
    scratch,
    security,
    spread,
)
from pytest_pgo_eks.local.operator.tls import pgbouncer_frontend
from pytest_pgo_eks.local.operator.users import decoded, secret

Rendered = tuple[Kind, Obj]

_DIRECTORY = "/etc/pgbouncer"
_OWN = "~postgres-operator"
_INI = f"{_DIRECTORY}/{_OWN}.ini"
_FILES = f"{_DIRECTORY}/{_OWN}"
_ROLE = {names.ROLE: "pgbouncer"}
_PASSWORD_LENGTH = 32


def settings(cluster: Cluster) -> dict[str, str]:
    """Return PgBouncer's global settings; the user's win over all but ``conffile``."""
    found = {
        "auth_file": f"{_FILES}/users.txt",
        "auth_query": "SELECT username, password from pgbouncer.get_auth($1)",
        "auth_user": names.PGBOUNCER_USER,
        "client_tls_ca_file": f"{_FILES}/frontend-ca.crt",
        "client_tls_cert_file": f"{_FILES}/frontend-tls.crt",
        "client_tls_key_file": f"{_FILES}/frontend-tls.key",
        "client_tls_sslmode": "require",
        "ignore_startup_parameters": "extra_float_digits",
        "listen_addr": "*",
        "listen_port": str(cluster.pgbouncer_port),
        "server_tls_ca_file": f"{_FILES}/backend-ca.crt",
        "server_tls_sslmode": "verify-full",
        "unix_socket_dir": "",
    }
    given = (cluster.pgbouncer or {}).get("config") or {}
    return found | (given.get("global") or {}) | {"conffile": _INI}


def config_map(cluster: Cluster) -> Rendered:
    given = (cluster.pgbouncer or {}).get("config") or {}
    databases = given.get("databases") or {"*": f"host={cluster.name}-primary port={cluster.port}"}
    parts = [
        GENERATED,
        f"[pgbouncer]\n%include {_DIRECTORY}/pgbouncer.ini\n",
        _section("pgbouncer", settings(cluster)),
        _section("databases", databases),
    ]
    if given.get("users"):
        parts.append(_section("users", given["users"]))
    return CONFIG_MAP, {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": cluster.metadata(f"{cluster.name}-pgbouncer", _ROLE, _block(cluster)),
        "data": {"pgbouncer-empty": "", "pgbouncer.ini": "\n".join(parts)},
    }


def _section(name: str, values: Mapping[str, str]) -> str:
    lines = [f"{key} = {value}".rstrip() for key, value in sorted(values.items())]
    return "\n".join([f"[{name}]", *lines]) + "\n"


def _block(cluster: Cluster) -> Obj | None:
    found: Obj | None = (cluster.pgbouncer or {}).get("metadata")
    return found


def own_secret(cluster: Cluster, root: KeyPair, existing: Obj | None) -> Rendered:
    """Return Secret ``hippo-pgbouncer``: its own login, and what it shows to clients."""
    kept = decoded(existing)
    password, verifier = kept.get("pgbouncer-password", ""), kept.get("pgbouncer-verifier", "")
    if not password:
        password, verifier = passwords.generate(_PASSWORD_LENGTH), ""
    if not verifier:
        verifier = passwords.verifier(password)
    data = {
        "pgbouncer-password": password,
        "pgbouncer-verifier": verifier,
        "pgbouncer-users.txt": f'"{names.PGBOUNCER_USER}" "{password}"\n',
    }
    if not (cluster.pgbouncer or {}).get("customTLSSecret"):
        data |= pgbouncer_frontend(cluster, root, kept)
    metadata = cluster.metadata(f"{cluster.name}-pgbouncer", _ROLE, _block(cluster))
    return secret(metadata, data)


def deployment(cluster: Cluster, images: Images) -> Rendered:
    given = cluster.pgbouncer or {}
    match = {names.CLUSTER: cluster.name} | _ROLE
    image = images.pgbouncer(cluster)
    direct = ["pgbouncer", _INI]
    wrapper = ["sh", "-c", "--", 'exec "$@"', "--"] if cluster.release.path_wrapper else []
    mounts = [
        mount("pgbouncer-config", _DIRECTORY, read_only=True),
        mount("tmp", "/tmp"),  # noqa: S108 - PGO's own path
    ]
    reload = scripts.command(scripts.RELOAD_PGBOUNCER, "pgbouncer-config", _DIRECTORY)
    ports = [{"name": "pgbouncer", "containerPort": cluster.pgbouncer_port, "protocol": "TCP"}]
    pod: Obj = {
        "automountServiceAccountToken": False,
        "containers": [
            container(
                "pgbouncer",
                image,
                [*wrapper, *direct],
                mounts,
                cluster,
                ports=ports,
                resources=given.get("resources"),
            ),
            container("pgbouncer-config", image, reload, mounts, cluster),
            *(given.get("containers") or []),
        ],
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "securityContext": security(cluster, cluster.release.pgbouncer_group),
        "shareProcessNamespace": True,
        "topologySpreadConstraints": spread(cluster, {"matchLabels": match}, given),
        "volumes": [projected("pgbouncer-config", _sources(cluster)), scratch()],
    }
    note = {names.DEFAULT_CONTAINER: "pgbouncer"}
    return DEPLOYMENT, {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": cluster.metadata(f"{cluster.name}-pgbouncer", _ROLE, _block(cluster)),
        "spec": {
            "replicas": 0 if cluster.shutdown else cluster.pgbouncer_replicas,
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": match},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
            "template": {
                "metadata": {
                    "labels": cluster.labels(_ROLE, _block(cluster)),
                    "annotations": cluster.notes(note, _block(cluster)),
                },
                "spec": pod | scheduling(cluster, given),
            },
        },
    }


def _sources(cluster: Cluster) -> list[Obj]:
    name = f"{cluster.name}-pgbouncer"
    given = cluster.pgbouncer or {}
    frontend = {
        "pgbouncer-frontend.ca-roots": f"{_OWN}/frontend-ca.crt",
        "pgbouncer-frontend.key": f"{_OWN}/frontend-tls.key",
        "pgbouncer-frontend.crt": f"{_OWN}/frontend-tls.crt",
    }
    custom = given.get("customTLSSecret")
    if custom:
        chosen = {item["path"]: item["key"] for item in custom.get("items") or []}
        frontend = {
            chosen.get("ca.crt", "ca.crt"): f"{_OWN}/frontend-ca.crt",
            chosen.get("tls.key", "tls.key"): f"{_OWN}/frontend-tls.key",
            chosen.get("tls.crt", "tls.crt"): f"{_OWN}/frontend-tls.crt",
        }
    server = (cluster.spec.get("customTLSSecret") or {}).get("name")
    return [
        from_config_map(name, {"pgbouncer-empty": "pgbouncer.ini"}),
        *((given.get("config") or {}).get("files") or []),
        from_config_map(name, {"pgbouncer.ini": f"{_OWN}.ini"}),
        from_secret(name, {"pgbouncer-users.txt": f"{_OWN}/users.txt"}),
        from_secret(custom["name"] if custom else name, frontend),
        from_secret(server or f"{cluster.name}-cluster-cert", {"ca.crt": f"{_OWN}/backend-ca.crt"}),
    ]


ALL_DATABASES = "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn ORDER BY 1"

ENABLE_SQL = """
SET synchronous_commit = LOCAL;
SET client_min_messages = WARNING;
BEGIN;
SELECT format('CREATE ROLE %I', :'username') WHERE NOT EXISTS
  (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = :'username') \\gexec
ALTER ROLE :"username" LOGIN PASSWORD :'verifier';
CREATE SCHEMA IF NOT EXISTS :"namespace";
REVOKE ALL ON SCHEMA :"namespace" FROM PUBLIC, :"username";
GRANT USAGE ON SCHEMA :"namespace" TO :"username";
CREATE OR REPLACE FUNCTION :"namespace".get_auth(login text)
RETURNS TABLE (username text, password text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
  SELECT a.rolname::text, a.rolpassword
    FROM pg_catalog.pg_authid AS a
   WHERE a.rolname = get_auth.login
     AND a.rolcanlogin AND NOT a.rolsuper AND NOT a.rolreplication
     AND a.rolname <> '_crunchypgbouncer'
     AND (a.rolvaliduntil IS NULL OR a.rolvaliduntil > pg_catalog.now())
$$;
REVOKE ALL ON FUNCTION :"namespace".get_auth(text) FROM PUBLIC, :"username";
GRANT EXECUTE ON FUNCTION :"namespace".get_auth(text) TO :"username";
COMMIT;
""".strip()

DISABLE_SQL = """
SET synchronous_commit = LOCAL;
SET client_min_messages = WARNING;
BEGIN;
DROP SCHEMA IF EXISTS :"namespace" CASCADE;
SELECT format('ALTER ROLE %I NOLOGIN PASSWORD NULL', :'username') WHERE EXISTS
  (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = :'username') \\gexec
COMMIT;
""".strip()
