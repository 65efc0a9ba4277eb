"""The manifest under test: the suite's own completed, the user's checked with one line each."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_pgo_eks import shipped
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.pgo import load, render
from pytest_pgo_eks.pgo import manifest as manifests
from pytest_pgo_eks.settings import Settings
from pytest_pgo_eks.settings_install import InstallSettings

OWN: dict[str, Any] = yaml.safe_load((shipped.fixtures() / "postgres" / "cluster.yaml").read_text())


def given(tmp_path: Path, manifest: Any, **settings: Any) -> Settings:
    path = tmp_path / "mine.yaml"
    path.write_text(manifest if isinstance(manifest, str) else yaml.safe_dump(manifest))
    return Settings(provider="local", manifest=path, **settings)


def changed(**paths: Any) -> dict[str, Any]:
    """The suite's manifest with values set (None: removed) at ``a__b__0__c`` paths."""
    manifest = copy.deepcopy(OWN)
    for path, value in paths.items():
        *way, last = path.split("__")
        at: Any = manifest
        for step in way:
            at = at[int(step)] if step.isdigit() else at.setdefault(step, {})
        if value is None:
            at.pop(last)
        else:
            at[last] = value
    return manifest


def test_the_suites_own_manifest_takes_the_settings() -> None:
    settings = Settings(
        provider="local", namespace="elsewhere", postgres_version=17, lease_s=20, sync_period_s=2
    )
    made = render(settings)
    assert made["metadata"]["namespace"] == "elsewhere"
    assert made["spec"]["postgresVersion"] == 17
    patroni = made["spec"]["patroni"]
    assert (patroni["leaderLeaseDurationSeconds"], patroni["syncPeriodSeconds"]) == (20, 2)
    # Patroni's own rule: loop_wait + 2 * retry_timeout <= ttl.
    assert patroni["dynamicConfiguration"]["retry_timeout"] == 9
    assert patroni["dynamicConfiguration"]["synchronous_mode"] is True
    assert manifests.instance_sets(made) == {"pg-1": 3}
    assert (manifests.lease_s(made), manifests.sync_period_s(made)) == (20, 2)


def test_pgos_defaults_stay_where_nothing_is_said() -> None:
    made = render(Settings(provider="kind"))
    assert "leaderLeaseDurationSeconds" not in made["spec"]["patroni"]
    assert "retry_timeout" not in made["spec"]["patroni"]["dynamicConfiguration"]
    assert (manifests.lease_s(made), manifests.sync_period_s(made)) == (30, 10)


def test_the_newest_postgresql_stands_in_for_a_missing_one() -> None:
    settings = Settings(provider="local")
    own = OWN["spec"]["postgresVersion"]
    assert render(settings, available=(15,))["spec"]["postgresVersion"] == 15
    assert render(settings, available=(15, own))["spec"]["postgresVersion"] == own
    asked = Settings(provider="local", postgres_version=18)
    assert render(asked, available=(15,))["spec"]["postgresVersion"] == 18


def test_a_users_manifest_is_judged_as_it_is(tmp_path: Path) -> None:
    mine = changed(
        metadata__name="mine",
        spec__patroni__leaderLeaseDurationSeconds=60,
        spec__instances__0__replicas=2,
    )
    del mine["metadata"]["namespace"]
    made = render(given(tmp_path, mine, lease_s=60, sync_period_s=5, namespace="n"))
    assert made["metadata"] == {"name": "mine", "namespace": "n"}
    assert made["spec"]["patroni"]["leaderLeaseDurationSeconds"] == 60
    assert made["spec"]["patroni"]["syncPeriodSeconds"] == 5
    assert made["spec"]["postgresVersion"] == OWN["spec"]["postgresVersion"]


def test_a_storage_class_fills_every_claim_that_is_silent(tmp_path: Path) -> None:
    mine = changed(spec__instances__0__dataVolumeClaimSpec__storageClassName="mine")
    made = render(given(tmp_path, mine), storage_class="gp3")
    assert made["spec"]["instances"][0]["dataVolumeClaimSpec"]["storageClassName"] == "mine"
    repo = made["spec"]["backups"]["pgbackrest"]["repos"][0]["volume"]["volumeClaimSpec"]
    assert repo["storageClassName"] == "gp3"


def test_the_shipped_manifests_are_valid() -> None:
    for path in sorted((shipped.fixtures() / "postgres").glob("*.yaml")):
        manifest = manifests.load(path)
        manifests.check(manifest, str(path), Settings(provider="local"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: [\n", "line 2, column 1: not YAML"),
        ("a: b: c\n", "line 1, column 5: not YAML: mapping values"),
        ("\t- x\n", "line 1"),
        ("", "it is empty"),
        ("# only a comment\n---\n", "it is empty"),
        ("just text", "a mapping is needed, not str"),
        ("kind: Pod\napiVersion: v1\n", "kind is 'Pod'; a PostgresCluster is needed"),
        (
            "kind: PostgresCluster\napiVersion: acid.zalan.do/v1\n",
            "apiVersion is 'acid.zalan.do/v1'",
        ),
        ("kind: PostgresCluster\n---\nkind: Secret\n", "it holds PostgresCluster, Secret"),
    ],
)
def test_a_file_that_holds_no_postgrescluster(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        render(given(tmp_path, text))
    assert sentence in str(caught.value)
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    settings = Settings(provider="local", manifest=tmp_path / "nowhere.yaml")
    with pytest.raises(UsageProblem, match=r"nowhere\.yaml: cannot be read: No such file"):
        render(settings)
    (tmp_path / "nowhere.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageProblem, match=r"cannot be read: it is no UTF-8"):
        render(settings)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"metadata__name": None}, "metadata.name is missing"),
        ({"metadata__name": "Hippo_1"}, "'Hippo_1' is no name"),
        ({"metadata__name": "h" * 60}, "more than 46 characters"),
        ({"metadata__namespace": "other"}, "--pgo-namespace=other"),
        ({"spec": None}, "spec is missing"),
        ({"spec__instances": []}, "spec.instances is missing"),
        ({"spec__instances": ["x"]}, "spec.instances[0] is no mapping"),
        ({"spec__instances__0__replicas": 1}, "have 1 replica in all"),
        ({"spec__instances__0__replicas": None}, "have 1 replica in all"),
        ({"spec__instances__0__replicas": "three"}, "replicas is 'three'; a whole number"),
        ({"spec__instances__0__replicas": 0}, "replicas is 0"),
        (
            {"spec__instances__0__replicas": None, "spec__instances__0__replica": 3},
            "spec.instances[0].replica is unknown; did you mean replicas?",
        ),
        ({"spec__instances__0__dataVolumeClaimSpec": None}, "requests.storage is missing"),
        ({"spec__instances__0__dataVolumeClaimSpec__accessModes": []}, "accessModes is missing"),
        ({"spec__postgresVersion": None}, "spec.postgresVersion is None"),
        ({"spec__postgresVersion": "16"}, "spec.postgresVersion is '16'; a whole number"),
        ({"spec__shutdown": True}, "spec.shutdown is true: the suite needs a cluster that runs"),
        ({"spec__paused": True}, "spec.paused is true"),
        ({"spec__standby": {"enabled": True}}, "spec.standby.enabled is true"),
        (
            {"spec__patroni__dynamicConfiguration__pause": True},
            "dynamicConfiguration.pause is true",
        ),
        ({"spec__patroni__leaderLeaseDurationSeconds": "30s"}, "'30s'; whole seconds"),
        ({"spec__patroni__syncPeriodSeconds": 0}, "syncPeriodSeconds is 0"),
        ({"spec__patroni__leaderLeaseDurationSeconds": 19}, "holds no lease below 20 seconds"),
        ({"spec__patroni__syncPeriodSeconds": 25}, "too long beside a lease of 30 seconds"),
        ({"spec__postgresVersion": 12}, "12, which is not supported; 15, 16, 17, 18 are"),
    ],
)
def test_what_the_suite_cannot_judge_is_one_line(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageProblem) as caught:
        render(given(tmp_path, changed(**changes)))
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(caught.value)


def test_one_instance_is_enough_where_nobody_fails_over(tmp_path: Path) -> None:
    mine = changed(spec__instances__0__replicas=1)
    assert render(given(tmp_path, mine), needs_failover=False)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"postgres_version": 17}, "--pgo-postgres-version asks for 17"),
        ({"lease_s": 25}, "--pgo-lease asks for 25"),
        ({"sync_period_s": 3}, "--pgo-sync-period asks for 3"),
    ],
)
def test_options_that_contradict_the_manifest_are_refused(
    tmp_path: Path, settings: dict[str, int], sentence: str
) -> None:
    mine = changed(
        spec__patroni__leaderLeaseDurationSeconds=30,
        spec__patroni__syncPeriodSeconds=10,
        spec__postgresVersion=16,
    )
    with pytest.raises(UsageProblem, match=sentence):
        render(given(tmp_path, mine, **settings))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lease_s": 5}, "--pgo-lease: 5 is too short"),
        ({"lease_s": 20, "sync_period_s": 15}, "--pgo-sync-period: 15 is too long beside"),
    ],
)
def test_options_that_patroni_would_replace_in_silence_are_refused(
    settings: dict[str, int], sentence: str
) -> None:
    with pytest.raises(UsageProblem, match=sentence):
        render(Settings(provider="local", **settings))  # type: ignore[arg-type]
    assert render(Settings(provider="local", lease_s=20, sync_period_s=14))


def test_rendering_leaves_its_input_alone(tmp_path: Path) -> None:
    settings = given(tmp_path, OWN, lease_s=20, sync_period_s=2)
    assert render(settings) == render(settings)


def test_unnamed_sets_are_called_as_pgo_calls_them() -> None:
    sets = [{"replicas": 2}, {"name": "b"}]
    manifest: dict[str, Any] = {"spec": {"instances": sets}}
    assert manifests.declared(manifest) == manifests.Declared({"00": 2, "b": 1})
    manifest["spec"]["proxy"] = {"pgBouncer": {"replicas": 0}}
    assert not manifests.declared(manifest).proxy
    found = manifests.declared(OWN)
    assert (found.instances, found.repos, found.proxy) == (3, ("repo1",), True)


def test_what_a_manifest_does_not_say_comes_from_the_settings() -> None:
    install = InstallSettings(
        storage_class="fast", storage="7Gi", cpu="2", memory="4Gi", replicas=5, spread="preferred"
    )
    spec = render(Settings("kubeconfig", install=install))["spec"]
    instances = spec["instances"][0]
    claim = instances["dataVolumeClaimSpec"]
    assert instances["replicas"] == 5
    assert claim["storageClassName"] == "fast"
    assert claim["resources"]["requests"]["storage"] == "7Gi"
    assert instances["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}
    assert instances["resources"]["requests"] == {"cpu": "2", "memory": "4Gi"}
    assert instances["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "ScheduleAnyway"
    repo = spec["backups"]["pgbackrest"]["repos"][0]["volume"]["volumeClaimSpec"]
    assert repo["storageClassName"] == "fast"


def test_what_a_users_manifest_says_stays(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    found = load(shipped.fixtures() / "postgres" / "cluster.yaml")
    instances = found["spec"]["instances"][0]
    instances["resources"] = {"limits": {"cpu": "1"}}
    instances["dataVolumeClaimSpec"]["storageClassName"] = "slow"
    path.write_text(yaml.safe_dump(found), "utf-8")
    install = InstallSettings(storage_class="fast", cpu="2", replicas=5, storage="7Gi")
    settings = Settings("kubeconfig", manifest=path, install=install)
    mine = render(settings)["spec"]["instances"][0]
    assert mine["resources"] == {"limits": {"cpu": "1"}}
    assert mine["dataVolumeClaimSpec"]["storageClassName"] == "slow"
    assert mine["replicas"] == 3
