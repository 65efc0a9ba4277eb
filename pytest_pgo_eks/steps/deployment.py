"""What stands in Kubernetes, and what an application finds there."""

from __future__ import annotations

from pytest_bdd import parsers, then, when

from pytest_pgo_eks.pgo import Operator, PostgresCluster
from pytest_pgo_eks.scenario import application, backups, objects, roles, servers
from pytest_pgo_eks.scenario.stage import Stage


@then("the operator's Deployment is available")
def operator_available(pgo_postgres: PostgresCluster, pgo_operator: Operator) -> None:
    """Kubernetes counts every replica of the operator as available."""
    objects.demand_operator_available(pgo_postgres.kube, pgo_operator)


@then("the API serves PostgresCluster in the version that the suite uses")
def resource_served(pgo_postgres: PostgresCluster) -> None:
    """The CustomResourceDefinition is established and serves the manifest's version."""
    objects.demand_resource_served(pgo_postgres.kube, pgo_postgres.object())


@then("the operator says which version it is")
def operator_version(pgo_operator: Operator) -> None:
    """The running operator's version is known, so that the verdict says what was judged."""
    assert pgo_operator.version, f"no version is known of {pgo_operator.image}"


@then("the PostgresCluster's status describes its newest generation")
def status_is_current(pgo_postgres: PostgresCluster) -> None:
    """``status.observedGeneration`` is the object's generation."""
    objects.demand_status(pgo_postgres)


@then(
    parsers.re(r"the PostgresCluster's status counts (?P<count>\d+) ready instances"),
    converters={"count": int},
)
def status_counts(pgo_postgres: PostgresCluster, count: int) -> None:
    """The operator counts this many ready instances."""
    objects.demand_status(pgo_postgres, count)


@then(
    parsers.re(
        r"(?P<count>\d+) instances were ready within (?P<budget>.+) of the PostgresCluster's creation"
    ),
    converters={"count": int},
)
def ready_within(stage: Stage, count: int, budget: str) -> None:
    """Creation to readiness, by the objects' own timestamps."""
    stage.keep(objects.demand_ready_in_time(stage.postgres, count, stage.seconds(budget)))


@then(
    parsers.re(r"one instance is the primary and (?P<count>\d+) are replicas"),
    converters={"count": int},
)
def one_primary(pgo_postgres: PostgresCluster, count: int) -> None:
    """Asked of every server: one is not in recovery, the others are."""
    roles.require_members(pgo_postgres.observe(sql=True), count + 1)


@then("every instance has a bound data volume of its own")
def bound_volumes(pgo_postgres: PostgresCluster) -> None:
    """Every instance has a claim, bound to a volume that no other instance uses."""
    objects.demand_volumes(pgo_postgres)


@then("the backup repository has a bound volume")
def bound_repository(pgo_postgres: PostgresCluster) -> None:
    """Every repository on a volume has a bound claim."""
    objects.demand_repository(pgo_postgres)


@then(parsers.re(r"every instance runs (?:on|in) a (?P<place>node|zone) of its own"))
def own_place(pgo_postgres: PostgresCluster, place: str) -> None:
    """No two instances share a node or a zone."""
    objects.demand_spread(pgo_postgres.observe(), place)


@then("every instance pod is labelled with its cluster, its instance set and its instance")
def pod_labels(pgo_postgres: PostgresCluster) -> None:
    """PGO's documented labels are on every instance pod and name the right things."""
    objects.demand_pod_labels(pgo_postgres)


@then(
    parsers.re(
        r"exactly one instance pod is labelled as the primary and (?P<count>\d+) as replicas"
    ),
    converters={"count": int},
)
def role_labels(pgo_postgres: PostgresCluster, count: int) -> None:
    """The role label, which Patroni writes, is there once for the primary."""
    objects.demand_role_labels(pgo_postgres.observe(), count)


@then(
    parsers.re(r"the (?P<service>ha|replicas|primary) Service offers port (?P<port>\d+)"),
    converters={"port": int},
)
def service_port(pgo_postgres: PostgresCluster, service: str, port: int) -> None:
    """The Service ``CLUSTER-service`` has this port."""
    objects.demand_service_port(pgo_postgres, service, port)


@then(parsers.re(r"the (?P<service>ha|replicas|primary) Service has at least one ready endpoint"))
def service_endpoint(pgo_postgres: PostgresCluster, service: str) -> None:
    """Somebody ready stands behind the Service."""
    objects.demand_endpoints(pgo_postgres, service)


@then("the Secret of the application's user names the host, port, database, user and password")
def secret_keys(stage: Stage) -> None:
    """The keys that PGO documents are there and not empty."""
    user = stage.targets.application.name
    objects.demand_secret_keys(stage.targets.secret(user), user)


@then("a disruption budget keeps at least one instance of the set running")
def disruption_budget(pgo_postgres: PostgresCluster) -> None:
    """Every instance set is covered by a PodDisruptionBudget."""
    objects.demand_budget(pgo_postgres)


@when(
    "an application connects with the application's Secret, verifying the server's certificate",
    target_fixture="connected",
)
def connect_verified(stage: Stage) -> application.Connected:
    """One session from inside the cluster with nothing but the Secret and the CA."""
    return application.connect(stage)


@when(
    "an application connects with the application's Secret, trusting another authority",
    target_fixture="connected",
)
def connect_distrusting(stage: Stage) -> application.Connected:
    """The same, but verifying against a CA that did not sign the server's certificate."""
    return application.connect(stage, ca_pem=application.foreign_authority(stage))


@when(
    "an application connects through PgBouncer with the application's Secret",
    target_fixture="connected",
)
def connect_pooled(stage: Stage) -> application.Connected:
    """One session through PgBouncer with nothing but the Secret; skipped where none is declared."""
    application.require_pgbouncer(stage)
    return application.connect(stage, pooled=True)


@then("the connection is encrypted")
def encrypted(connected: application.Connected) -> None:
    """The session uses TLS, as the client and the server both say."""
    connected.demand_encrypted()


@then("the connected user is the application's")
def connected_user(connected: application.Connected) -> None:
    """``current_user`` is the Secret's user."""
    connected.demand_user()


@then("the connected server accepts writes")
def accepts_writes(connected: application.Connected) -> None:
    """The server is not in recovery and not read-only."""
    connected.demand_writable()


@then("the connected server is the primary")
def is_primary(stage: Stage, connected: application.Connected) -> None:
    """The server's address is the one of the instance that is the primary by all witnesses."""
    connected.demand_address(roles.primary(stage.postgres.observe(sql=True)))


@then("the connection fails because the certificate is not trusted")
def not_trusted(connected: application.Connected) -> None:
    """The client refuses the server's certificate, and for no other reason."""
    connected.demand_failure("certificate")


@then("every declared user exists and may log in")
def users_exist(stage: Stage) -> None:
    """Asked of the primary, for every user of ``spec.users``."""
    servers.demand_users(stage.postgres, stage.targets.users)


@then("every declared database exists")
def databases_exist(stage: Stage) -> None:
    """Asked of the primary; each user may connect to its databases."""
    servers.demand_databases(stage.postgres, stage.targets.users)


@then("the declared options of every user are in force")
def options_in_force(stage: Stage) -> None:
    """What was declared is there, and no power that was not declared."""
    servers.demand_options(stage.postgres, stage.targets.users)


@then(parsers.re(r"a full backup is complete within (?P<budget>.+)"))
def full_backup(stage: Stage, budget: str) -> None:
    """pgBackRest itself lists a full backup without error."""
    stage.keep(backups.full_backup(stage.postgres, stage.seconds(budget)))


@then("the repository holds the write-ahead log from that backup on")
def archive_complete(stage: Stage) -> None:
    """The archive begins no later than the first full backup."""
    stage.keep(backups.demand_archive_from_backup(stage.postgres))


@when("the primary switches to a new write-ahead log segment", target_fixture="segment")
def switch_segment(stage: Stage) -> str:
    """Something is written and the segment that holds it ended."""
    return backups.switch_segment(stage.postgres)


@then(parsers.re(r"that segment is archived within (?P<budget>.+)"))
def segment_archived(stage: Stage, segment: str, budget: str) -> None:
    """``pg_stat_archiver`` names the segment or a later one."""
    stage.keep(backups.archived(stage.postgres, segment, stage.seconds(budget)))
