"""Red cases of what stands still: deployment, access, configuration."""

from __future__ import annotations

import dataclasses

from pgo.conftest import PRIMARY, REPLICA, STANDBY

from pytest_pgo_eks.postgres import HbaRule
from pytest_pgo_eks.scenario.application import Connected
from pytest_pgo_eks.scenario.changes import Change
from pytest_pgo_eks.steps import access, configuration, deployment
from steps.spoiling import (
    LETS_IN,
    ROLE,
    Case,
    address_of,
    attempts,
    backup,
    change_object,
    connected,
    created_lately,
    failing,
    let_in,
    old_started,
    session,
    simple,
    status,
)
from steps.world import answer, refusal

CASES: tuple[Case, ...] = (
    # deployment
    simple(
        deployment.operator_available,
        change_object("Deployment", lambda o: o["status"].update(availableReplicas=0)),
    ),
    simple(
        deployment.resource_served,
        change_object("CustomResourceDefinition", lambda o: o["spec"].update(versions=[])),
    ),
    Case(
        deployment.operator_version,
        lambda world: deployment.operator_version(getattr(world, "told", world.operator())),
        lambda world: setattr(world, "told", world.operator(version="")),
    ),
    simple(deployment.status_is_current, lambda w: status(w).update(observedGeneration=0)),
    simple(
        deployment.status_counts,
        lambda w: status(w)["instances"][0].update(readyReplicas=2),
        count=3,
    ),
    simple(
        deployment.ready_within,
        change_object(
            "PostgresCluster",
            lambda o: o["metadata"].update(creationTimestamp="2020-01-01T00:00:00Z"),
        ),
        prepare=created_lately,
        count=3,
        budget="1 hour",
    ),
    simple(deployment.one_primary, lambda w: w.change_server(STANDBY, in_recovery=False), count=2),
    simple(
        deployment.bound_volumes,
        change_object("PersistentVolumeClaim", lambda o: o["status"].update(phase="Pending")),
    ),
    simple(
        deployment.bound_repository,
        lambda w: [
            claim["status"].update(phase="Lost")
            for claim in w.kube.objects["PersistentVolumeClaim"]
        ],
    ),
    simple(
        deployment.own_place,
        lambda w: w.pod(STANDBY)["spec"].update(nodeName=w.pod(PRIMARY)["spec"]["nodeName"]),
        place="node",
    ),
    simple(
        deployment.pod_labels,
        lambda w: w.pod(STANDBY)["metadata"]["labels"].update(
            {"postgres-operator.crunchydata.com/instance": "another"}
        ),
    ),
    simple(
        deployment.role_labels,
        lambda w: w.pod(STANDBY)["metadata"]["labels"].update({ROLE: "master"}),
        count=2,
    ),
    simple(
        deployment.service_port,
        change_object("Service", lambda o: o["spec"].update(ports=[{"port": 5433}])),
        service="ha",
        port=5432,
    ),
    simple(
        deployment.service_endpoint,
        lambda w: w.kube.one("Endpoints", "hippo-ha").update(subsets=[]),
        service="ha",
    ),
    simple(deployment.secret_keys, lambda w: w.kube.values.pop("password")),
    simple(
        deployment.disruption_budget,
        change_object("PodDisruptionBudget", lambda o: o["spec"].update(minAvailable=0)),
    ),
    simple(deployment.encrypted, session("testuser", "f", tls=False), connected=connected()),
    simple(deployment.connected_user, session("somebody", "t"), connected=connected()),
    simple(
        deployment.accepts_writes,
        session("testuser", "t", "t", "on", "10.42.0.20"),
        connected=connected(),
    ),
    Case(
        deployment.is_primary,
        lambda world: deployment.is_primary(
            world.stage,
            Connected(
                answer(
                    (
                        "testuser",
                        "t",
                        "f",
                        "off",
                        address_of(world, getattr(world, "reached", PRIMARY)),
                    )
                ),
                "testuser",
                pooled=True,
            ),
        ),
        lambda world: setattr(world, "reached", REPLICA),
    ),
    simple(deployment.not_trusted, session(*LETS_IN), connected=failing("certificate")),
    simple(deployment.users_exist, lambda w: w.roles.pop("testuser")),
    simple(deployment.databases_exist, lambda w: w.databases.pop("testdb")),
    simple(
        deployment.options_in_force,
        lambda w: w.roles.update(
            testuser=dataclasses.replace(w.roles["testuser"], is_superuser=True)
        ),
    ),
    simple(
        deployment.full_backup,
        lambda w: backup(w, kind="incr"),
        prepare=backup,
        budget="0.1 seconds",
    ),
    simple(
        deployment.archive_complete,
        lambda w: backup(w, start="000000010000000000000001"),
        prepare=backup,
    ),
    simple(
        deployment.segment_archived,
        lambda w: setattr(w, "archived", "000000010000000000000006"),
        segment="000000010000000000000007",
        budget="0.1 seconds",
    ),
    # access
    simple(access.nobody_is_let_in, let_in, tried=attempts(refusal("28P01"), refusal("28000"))),
    simple(access.refused_unencrypted, session(*LETS_IN), connected=failing("28000")),
    # configuration
    simple(
        configuration.setting_everywhere,
        lambda w: w.settings[REPLICA].update(wal_level="minimal"),
        name="wal_level",
        comparison="one of",
        value="replica, logical",
    ),
    simple(
        configuration.standby_configuration,
        lambda w: w.settings[REPLICA].update(
            primary_conninfo="host=x user=_crunchyrepl sslmode=prefer"
        ),
    ),
    simple(configuration.declared_rules, lambda w: setattr(w, "rules", w.rules[:1])),
    simple(
        configuration.rules_loaded,
        lambda w: setattr(
            w, "rules", (HbaRule(3, "host", (), (), None, None, "", (), "invalid"), *w.rules)
        ),
    ),
    simple(
        configuration.setting_arrives,
        lambda w: w.settings[REPLICA].update(work_mem="4MB"),
        name="work_mem",
        value="5MB",
        budget="0.1 seconds",
    ),
    simple(
        configuration.new_value_arrives,
        lambda w: w.settings[REPLICA].update(max_connections="100"),
        change=Change("max_connections", "110", "100"),
        name="max_connections",
        budget="0.1 seconds",
    ),
    simple(configuration.not_restarted, old_started),
    simple(
        configuration.restarted_in_place, lambda w: setattr(w.stage, "before", w.seen), old_started
    ),
    simple(configuration.none_pending, lambda w: w.pending.append("max_connections")),
)
