"""Every object the operator makes, against the table of facts."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from pytest_pgo_eks.local.objects import Obj
from pytest_pgo_eks.local.operator import backup_jobs, services, users
from pytest_pgo_eks.local.operator.desired import Images

from . import facts
from .hippos import IMAGES, cluster, everything

Objects = dict[tuple[str, str], Obj]


@pytest.fixture(scope="module")
def made() -> Objects:
    return everything(cluster(), facts.INSTANCES)


def labels(obj: Obj) -> dict[str, str] | None:
    found = obj["metadata"].get("labels")
    if found is None:
        return None
    assert found.pop(f"{facts.P}cluster") == "hippo"
    return {name.removeprefix(facts.P): value for name, value in found.items()}


def test_the_inventory_and_its_labels_are_pgos() -> None:
    found = everything(cluster(), facts.INSTANCES)
    assert {key: labels(obj) for key, obj in found.items()} == facts.LABELS


def test_5_8_makes_the_same_but_the_repository_hosts_rights() -> None:
    found = everything(cluster(version="5.8"), facts.INSTANCES)
    assert facts.LABELS.keys() - found.keys() == facts.ONLY_6_0
    assert found.keys() <= facts.LABELS.keys()


def test_everything_is_owned_by_the_cluster_as_v1beta1(made: Objects) -> None:
    for (kind, name), obj in made.items():
        (owner,) = obj["metadata"]["ownerReferences"]
        assert owner["apiVersion"] == "postgres-operator.crunchydata.com/v1beta1"
        assert (owner["kind"], owner["name"], owner["uid"]) == ("PostgresCluster", "hippo", "9f2e")
        shared = name == "pgo-root-cacert"
        assert owner.get("controller", False) is not shared, (kind, name)
        assert owner.get("blockOwnerDeletion", False) is not shared


@pytest.mark.parametrize("name", sorted(facts.SECRET_KEYS))
def test_keys_of_secrets(made: Objects, name: str) -> None:
    secret = made["Secret", name]
    assert secret["type"] == "Opaque"
    assert set(secret["data"]) == facts.SECRET_KEYS[name]


@pytest.mark.parametrize("name", sorted(facts.SERVICES))
def test_services(made: Objects, name: str) -> None:
    headless, selector, port = facts.SERVICES[name]
    spec = made["Service", name]["spec"]
    assert (spec.get("clusterIP") == "None") is headless
    if selector is None:
        assert "selector" not in spec
    else:
        expected = {f"{facts.P}{key}": value for key, value in selector.items()}
        assert spec["selector"] == {f"{facts.P}cluster": "hippo"} | expected
    ports = spec.get("ports") or []
    assert [(p["name"], p["port"], p["targetPort"]) for p in ports] == (
        [(port, 5432, port)] if port else []
    )
    assert bool(spec.get("publishNotReadyAddresses")) is (name == "hippo-pods")


def test_the_primary_service_leads_to_the_address_patroni_moves(made: Objects) -> None:
    assert made["Endpoints", "hippo-primary"]["subsets"] == [
        {
            "addresses": [{"ip": "10.96.7.7"}],
            "ports": [{"name": "postgres", "port": 5432, "protocol": "TCP"}],
        }
    ]


@pytest.mark.parametrize("name", sorted(facts.CONTAINERS))
def test_containers(made: Objects, name: str) -> None:
    workload = made.get(("StatefulSet", name)) or made["Deployment", name]
    init, containers, mounts = facts.CONTAINERS[name]
    pod = workload["spec"]["template"]["spec"]
    assert [c["name"] for c in pod.get("initContainers") or []] == init
    assert [c["name"] for c in pod["containers"]] == containers
    assert [m["mountPath"] for m in pod["containers"][0]["volumeMounts"]] == mounts
    assert pod["shareProcessNamespace"] is True
    volumes = {v["name"] for v in pod["volumes"]}
    for container in [*pod["containers"], *(pod.get("initContainers") or [])]:
        assert {m["name"] for m in container["volumeMounts"]} <= volumes
        security = container["securityContext"]
        assert security["runAsNonRoot"]
        assert security["readOnlyRootFilesystem"]
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_database_container(made: Objects) -> None:
    runner = made["StatefulSet", "hippo-pg-1-aaaa"]["spec"]
    assert runner["updateStrategy"] == {"type": "OnDelete"}
    assert runner["serviceName"] == "hippo-pods"
    database = runner["template"]["spec"]["containers"][0]
    given = {
        e["name"]: e.get("value") or e["valueFrom"]["fieldRef"]["fieldPath"]
        for e in database["env"]
    }
    assert given == facts.DATABASE_ENVIRONMENT
    assert list(given) == list(facts.DATABASE_ENVIRONMENT)
    assert database["ports"] == [{"name": "postgres", "containerPort": 5432, "protocol": "TCP"}]
    assert database["command"][-2:] == ["patroni", "/etc/patroni"]
    template = runner["template"]["metadata"]
    assert template["labels"][f"{facts.P}patroni"] == "hippo-ha"
    assert f"{facts.P}role" not in template["labels"]
    assert template["annotations"] == {"kubectl.kubernetes.io/default-container": "database"}


def test_5_8_starts_patroni_directly() -> None:
    found = everything(cluster(version="5.8"), facts.INSTANCES)
    pod = found["StatefulSet", "hippo-pg-1-aaaa"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"] == ["patroni", "/etc/patroni"]
    assert "0700" in pod["initContainers"][0]["command"]
    repo = found["StatefulSet", "hippo-repo-host"]["spec"]["template"]["spec"]
    assert repo["automountServiceAccountToken"] is False
    bouncer = found["Deployment", "hippo-pgbouncer"]["spec"]["template"]["spec"]
    assert "fsGroup" not in bouncer["securityContext"]


@pytest.mark.parametrize(
    ("lease", "sync", "period", "timeout", "failures"),
    [(30, 10, 10, 5, 3), (20, 2, 2, 1, 10), (3, 1, 1, 1, 3), (5, 10, 10, 5, 1)],
)
def test_probes_follow_the_lease(
    lease: int, sync: int, period: int, timeout: int, failures: int
) -> None:
    patroni = {"leaderLeaseDurationSeconds": lease, "syncPeriodSeconds": sync}
    found = everything(cluster(patroni=patroni), facts.INSTANCES)
    pod = found["StatefulSet", "hippo-pg-1-aaaa"]["spec"]["template"]["spec"]
    for name, path in (("livenessProbe", "/liveness"), ("readinessProbe", "/readiness")):
        probe = pod["containers"][0][name]
        assert probe["httpGet"] == {"path": path, "port": 8008, "scheme": "HTTPS"}
        shape = (probe["periodSeconds"], probe["timeoutSeconds"], probe["failureThreshold"])
        assert shape == (period, timeout, failures)
        assert probe["initialDelaySeconds"] == 3


def test_the_users_own_spread_comes_before_the_operators(made: Objects) -> None:
    pod = made["StatefulSet", "hippo-pg-1-bbbb"]["spec"]["template"]["spec"]
    found = [(c["topologyKey"], c["whenUnsatisfiable"]) for c in pod["topologySpreadConstraints"]]
    assert found == [
        ("topology.kubernetes.io/zone", "DoNotSchedule"),
        ("kubernetes.io/hostname", "ScheduleAnyway"),
        ("topology.kubernetes.io/zone", "ScheduleAnyway"),
    ]
    plain = everything(cluster(disableDefaultPodScheduling=True), facts.INSTANCES)
    pod = plain["StatefulSet", "hippo-pg-1-bbbb"]["spec"]["template"]["spec"]
    assert len(pod["topologySpreadConstraints"]) == 1


def test_without_backups_nothing_of_pgbackrest_is_in_an_instance() -> None:
    hippo = cluster(backups={})
    root_free = everything_without_backups(hippo)
    pod = root_free["spec"]["template"]["spec"]
    assert [c["name"] for c in pod["containers"]] == ["database", "replication-cert-copy"]
    assert not [v for v in pod["volumes"] if "pgbackrest" in v["name"]]


def everything_without_backups(hippo: Any) -> Obj:
    from pytest_pgo_eks.local.operator.instances import stateful_set

    return stateful_set(hippo, hippo.instance_sets[0], "hippo-pg-1-aaaa", IMAGES)[1]


def test_user_metadata_reaches_every_object_but_not_over_the_operators_labels() -> None:
    given = {"labels": {"team": "dba", f"{facts.P}cluster": "mine"}, "annotations": {"why": "test"}}
    for (kind, name), obj in everything(cluster(metadata=given), facts.INSTANCES).items():
        if name == "pgo-root-cacert":
            continue
        assert obj["metadata"]["labels"]["team"] == "dba", (kind, name)
        assert obj["metadata"]["labels"][f"{facts.P}cluster"] == "hippo"
        assert obj["metadata"]["annotations"]["why"] == "test"


def test_a_claim_asks_for_what_the_user_asked_without_limits() -> None:
    given = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}, "limits": {"storage": "9Gi"}},
    }
    sets = [{"name": "pg-1", "dataVolumeClaimSpec": given}]
    claim = everything(cluster(instances=sets), facts.INSTANCES)[
        "PersistentVolumeClaim", "hippo-pg-1-aaaa-pgdata"
    ]
    assert claim["spec"]["resources"] == {"requests": {"storage": "2Gi"}}


@pytest.mark.parametrize(
    ("replicas", "minimum", "expected"), [(3, None, 1), (1, None, None), (3, 2, 2), (3, 0, None)]
)
def test_a_budget_protects_where_there_is_something_to_protect(
    replicas: int, minimum: int | None, expected: int | None
) -> None:
    each: Obj = {"name": "pg-1", "replicas": replicas}
    if minimum is not None:
        each["minAvailable"] = minimum
    rendered = services.instance_set_budget(cluster(), each)
    assert (rendered[1]["spec"]["minAvailable"] if rendered else None) == expected


def test_the_backup_job_finds_the_repository_host_by_label(made: Objects) -> None:
    container = made["Job", "hippo-backup-zzzz"]["spec"]["template"]["spec"]["containers"][0]
    env = {e["name"]: e["value"] for e in container["env"]}
    assert container["command"] == ["/opt/crunchy/bin/pgbackrest"]
    assert env["COMMAND"] == "backup"
    assert env["COMMAND_OPTS"] == "--stanza=db --repo=1"
    assert env["CONTAINER"] == "pgbackrest"
    wanted = dict(part.split("=") for part in env["SELECTOR"].split(","))
    host = made["StatefulSet", "hippo-repo-host"]["spec"]["template"]["metadata"]["labels"]
    assert wanted.items() <= host.items()


def test_pgbackrest_files(made: Objects) -> None:
    data = made["ConfigMap", "hippo-pgbackrest-config"]["data"]
    assert data["config-hash"] == "65bb57b6b5"
    assert "tls-server-auth = pgbackrest@9f2e=*" in data["pgbackrest-server.conf"]
    host = "repo1-host = hippo-repo-host-0.hippo-pods.postgres-operator.svc.cluster.local."
    assert f"{host}\n" in data["pgbackrest_instance.conf"]
    assert "start-fast = y" in data["pgbackrest_instance.conf"]
    repo = data["pgbackrest_repo.conf"]
    for number, name in enumerate(facts.INSTANCES, start=1):
        assert (
            f"pg{number}-host = {name}-0.hippo-pods.postgres-operator.svc.cluster.local.\n" in repo
        )


def test_schedules_become_cron_jobs() -> None:
    hippo = cluster()
    hippo.repos[0]["schedules"] = {"full": "0 1 * * 0", "incremental": "0 * * * *"}
    found = {
        obj["metadata"]["name"]: obj
        for _, obj in backup_jobs.cron_jobs(hippo, IMAGES, suspended=True)
    }
    assert sorted(found) == ["hippo-repo1-full", "hippo-repo1-incr"]
    incr = found["hippo-repo1-incr"]
    assert incr["spec"]["concurrencyPolicy"] == "Forbid"
    assert incr["spec"]["suspend"] is True
    assert incr["metadata"]["labels"][f"{facts.P}pgbackrest-cronjob"] == "incr"
    (container,) = incr["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "COMMAND_OPTS", "value": "--stanza=db --repo=1 --type=incr"} in container["env"]


def test_pgbouncers_file(made: Objects) -> None:
    text = made["ConfigMap", "hippo-pgbouncer"]["data"]["pgbouncer.ini"]
    assert "auth_query = SELECT username, password from pgbouncer.get_auth($1)\n" in text
    assert "server_tls_sslmode = verify-full\n" in text
    assert "\nunix_socket_dir =\n" in text
    assert text.endswith("[databases]\n* = host=hippo-primary port=5432\n")


def test_pgbouncers_settings_are_the_users_but_for_conffile() -> None:
    config = {"global": {"pool_mode": "transaction", "conffile": "/elsewhere"}}
    found = everything(cluster(proxy={"pgBouncer": {"config": config}}), facts.INSTANCES)
    text = found["ConfigMap", "hippo-pgbouncer"]["data"]["pgbouncer.ini"]
    assert "pool_mode = transaction\n" in text
    assert "conffile = /etc/pgbouncer/~postgres-operator.ini\n" in text


def test_a_user_secret_is_kept_and_says_how_to_connect() -> None:
    hippo = cluster()
    user = {"name": "app", "databases": ["testdb", "other"]}
    _, first = users.user_secret(hippo, user, None)
    _, again = users.user_secret(hippo, user, first)
    assert first == again
    data = users.decoded(first)
    assert data["host"] == "hippo-primary.postgres-operator.svc"
    assert data["dbname"] == "testdb"
    assert data["pgbouncer-host"] == "hippo-pgbouncer.postgres-operator.svc"
    assert data["pgbouncer-jdbc-uri"].endswith("&prepareThreshold=0&user=app")
    first["data"]["verifier"] = ""
    _, renewed = users.user_secret(hippo, user, first)
    assert users.decoded(renewed)["password"] == data["password"]
    assert users.decoded(renewed)["verifier"].startswith("SCRAM-SHA-256$4096:")


def test_a_uri_survives_every_character_of_a_password() -> None:
    existing = {"data": {"password": base64.b64encode(b"a/b:c@d?e#f%g").decode()}}
    _, secret = users.user_secret(cluster(), {"name": "app", "databases": ["testdb"]}, existing)
    uri = users.decoded(secret)["uri"]
    assert uri == (
        "postgresql://app:a%2Fb%3Ac%40d%3Fe%23f%25g@hippo-primary.postgres-operator.svc:5432/testdb"
    )


def test_images_come_from_the_spec_or_the_environment() -> None:
    assert IMAGES.missing(cluster()) == []
    assert Images({}).missing(cluster(image="mine")) == ["crunchy-pgbackrest", "crunchy-pgbouncer"]
    assert Images({"PGBACKREST": "x"}).missing(cluster("pattern")) == ["crunchy-postgres:16"]


def test_a_node_port_needs_a_service_type_that_has_one() -> None:
    assert services.misconfigured(cluster(service={"nodePort": 30001})) == ["hippo-ha"]
    assert not services.misconfigured(cluster(service={"nodePort": 30001, "type": "NodePort"}))
