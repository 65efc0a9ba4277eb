"""Where an operator may come from, what a user may change in it, and that exactly it goes again."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_pgo_eks.clusters.base import ClusterHandle, LedgerEntry
from pytest_pgo_eks.clusters.local import LocalProvider
from pytest_pgo_eks.errors import Conflict, UsageProblem
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.pgo import names, verify
from pytest_pgo_eks.pgo.install import (
    Installed,
    adjusted,
    install,
    overrides_of,
    render_checked,
    source_of,
    uninstall,
)
from pytest_pgo_eks.pgo.install.rendering import deployment_of
from pytest_pgo_eks.progress import silent
from pytest_pgo_eks.settings import Settings
from pytest_pgo_eks.settings_install import InstallSettings

from .repository import whole, write_repository

Object = dict[str, Any]
needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")


def rendered(given: Path | str, scratch: Path, **options: Any) -> list[Object]:
    source = source_of(str(given), scratch)
    assert source is not None
    options = {"namespace": "postgres-operator", "scope": "cluster"} | options
    return render_checked(source, scratch=scratch, **options)


def listed(objects: Sequence[Object]) -> list[str]:
    return [
        f"{one['kind']} {one['metadata'].get('namespace', '')}/{one['metadata']['name']}"
        for one in objects
    ]


ALL = [
    "Namespace /postgres-operator",
    "ClusterRole /postgres-operator",
    "ClusterRoleBinding /postgres-operator",
    "CustomResourceDefinition /postgresclusters.postgres-operator.crunchydata.com",
    "Deployment postgres-operator/pgo",
    "ServiceAccount postgres-operator/pgo",
]


@needs_kubectl
@pytest.mark.parametrize("parts", ["config", "kustomize/install"])
def test_both_repositories_are_rendered_by_kubectl(tmp_path: Path, parts: str) -> None:
    tree = write_repository(tmp_path / "tree", parts=parts)
    assert sorted(listed(rendered(tree, tmp_path))) == sorted(ALL)


@needs_kubectl
def test_an_archive_of_it_is_the_same(tmp_path: Path) -> None:
    write_repository(tmp_path / "postgres-operator-abc123")
    archive = tmp_path / "pgo.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "postgres-operator-abc123", "postgres-operator-abc123")
    assert sorted(listed(rendered(archive, tmp_path / "scratch"))) == sorted(ALL)


@needs_kubectl
def test_another_namespace_reaches_every_place_where_it_stands(tmp_path: Path) -> None:
    tree = write_repository(tmp_path / "tree")
    found = rendered(tree, tmp_path, namespace="elsewhere", scope="namespace")
    assert "Namespace /elsewhere" in listed(found)
    assert "Deployment elsewhere/pgo" in listed(found)
    binding = next(one for one in found if one["kind"] == "ClusterRoleBinding")
    assert binding["subjects"][0]["namespace"] == "elsewhere"


def test_a_rendered_manifest_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(whole(), "utf-8")
    assert sorted(listed(rendered(path, tmp_path))) == sorted(ALL)
    with pytest.raises(UsageProblem, match="say --pgo-namespace=postgres-operator"):
        rendered(path, tmp_path, namespace="elsewhere")


# Knows one call and refuses every other, as a program would that is not what we think it is.
_HELM = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["HELM_CALLS"], "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
known = ["template", "pgo", "oci://example.com:5000/charts/pgo", "--include-crds", "--namespace",
         "postgres-operator", "--version", "6.0.3", "--set", "singleNamespace=true"]
if sys.argv[1:] != known:
    sys.exit("Error: unknown call " + " ".join(sys.argv[1:]))
sys.stdout.write(open(os.environ["HELM_ANSWER"]).read())
"""


def test_a_chart_is_rendered_by_helm_with_its_definitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "helm"
    program.parent.mkdir()
    program.write_text(_HELM, "utf-8")
    program.chmod(0o755)
    objects = [one for one in yaml.safe_load_all(whole()) if one["kind"] != "Namespace"]
    for one in objects:
        one["metadata"].pop("namespace", None)
    (tmp_path / "answer").write_text(yaml.safe_dump_all(objects), "utf-8")
    monkeypatch.setenv("HELM_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("HELM_ANSWER", str(tmp_path / "answer"))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    chart = "oci://example.com:5000/charts/pgo:6.0.3"
    found = rendered(chart, tmp_path, scope="namespace")
    assert sorted(listed(found)) == sorted(ALL)
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
    with pytest.raises(UsageProblem, match=r"helm template pgo failed: Error: unknown call"):
        rendered(f"{chart}-1", tmp_path, scope="namespace")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(UsageProblem, match="needs helm on PATH"):
        rendered(chart, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none", None, "there is no such file or directory"),
        ("notes.txt", "hello", "neither YAML nor an archive"),
        ("empty.tar.gz", "no archive at all", "cannot be unpacked"),
        ("half.yaml", "{kind: [", "not YAML"),
        ("other.yaml", "kind: ConfigMap\nmetadata: {name: x}\n", "there is no Deployment in it"),
        (
            "bare.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x, namespace: y}\n",
            "it does not define postgresclusters",
        ),
    ],
)
def test_what_holds_no_operator_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(UsageProblem, match=said) as caught:
        rendered(tmp_path / name, tmp_path / "scratch")
    assert "\n" not in str(caught.value)


def test_a_directory_without_an_installer_names_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"config/default .* kustomize/install/default .* Chart"):
        rendered(tmp_path, tmp_path)


def test_nothing_is_installed_where_one_is_there_already(tmp_path: Path) -> None:
    assert source_of(None, tmp_path) is None
    assert source_of("installed", tmp_path) is None


def settings(**given: Any) -> Settings:
    return Settings("kubeconfig", install=InstallSettings(**given))


def test_images_secrets_and_annotations_are_changed_one_by_one(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {"example.com": {"auth": "eDp5"}}}), "utf-8")
    objects = list(yaml.safe_load_all(whole()))
    overrides = overrides_of(
        settings(
            images="operator=m/op:1, postgres_17=m/pg:17,RELATED_IMAGE_PGBACKREST=m/br,"
            "postgres_19=m/pg:19",
            pull_secrets=f"mine,{config}",
            annotations="eks.amazonaws.com/role-arn=arn:aws:iam::1:role/pgo",
        )
    )
    found = adjusted(objects, overrides, "postgres-operator")
    pod = deployment_of(found)["spec"]["template"]["spec"]
    images = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    assert pod["containers"][0]["image"] == "m/op:1"
    assert images["RELATED_IMAGE_POSTGRES_17"] == "m/pg:17"
    assert images["RELATED_IMAGE_POSTGRES_19"] == "m/pg:19"
    assert images["RELATED_IMAGE_PGBACKREST"] == "m/br"
    assert images["RELATED_IMAGE_PGBOUNCER"] == "stand-in/pgbouncer:6.0"
    assert pod["imagePullSecrets"] == [{"name": "mine"}, {"name": "pytest-pgo-eks-pull"}]
    secret = next(one for one in found if one["kind"] == "Secret")
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    account = next(one for one in found if one["kind"] == "ServiceAccount")
    assert account["metadata"]["annotations"] == {
        "eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/pgo"
    }
    assert objects == list(yaml.safe_load_all(whole()))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"images": "pgbouncr=x"}, r"knows no image 'pgbouncr' \(did you mean 'pgbouncer'\?\)"),
        ({"images": "operator"}, "'operator' is not NAME=VALUE"),
        ({"pull_secrets": "./none.json"}, "cannot be read"),
        ({"annotations": "a="}, "'a=' is not NAME=VALUE"),
    ],
)
def test_changes_that_cannot_be_made_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(UsageProblem, match=said):
        adjusted(list(yaml.safe_load_all(whole())), overrides_of(settings(**given)), "x")


# ------------------------------------------------------------------ on a cluster without operator


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterHandle]:
    """A stand-in cluster in which nobody has installed anything."""
    provider, chosen = LocalProvider(), Settings("local", install=InstallSettings("a place"))
    try:
        provider.preflight(chosen)
    except UsageProblem as problem:
        pytest.skip(f"this machine cannot run the stand-in cluster: {problem}")
    ledger = tmp_path_factory.mktemp("bare") / "ledger"
    LedgerEntry("local", os.getpid()).write(ledger)
    handle = provider.create(chosen, silent(), ledger)
    yield handle
    provider.destroy(handle, silent())


_KINDS = (
    "Namespace",
    "CustomResourceDefinition",
    "rbac.authorization.k8s.io/v1/ClusterRole",
    "rbac.authorization.k8s.io/v1/ClusterRoleBinding",
    "ServiceAccount",
    "apps/v1/Deployment",
)


def everything(kube: Kube) -> set[str]:
    return {f"{kind} {one}" for kind in _KINDS for one in listed(kube.list(kind))}


@needs_kubectl
@pytest.mark.cluster
def test_an_installation_is_verified_and_leaves_nothing_behind(
    bare: ClusterHandle, tmp_path: Path
) -> None:
    tree, record = write_repository(tmp_path / "tree"), tmp_path / "run.operator"
    with Kube(bare.kubeconfig) as kube:
        before = everything(kube)
        kube.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "postgres-operator"}}
        )
        objects = rendered(tree, tmp_path)
        made = install(kube, objects, record, within_s=30)
        assert Installed.read(record) == made
        assert all(one.uid for one in made.made)
        assert "Namespace" not in {one.kind for one in made.made}
        seen = verify(kube, "postgres-operator", within_s=60)
        assert seen.version == "6.0-stand-in"
        assert seen.lease_name == "cpk-leader-election-lease"
        assert (seen.lease_holder or "").startswith(seen.pod)
        # Once more changes nothing and claims nothing more.
        assert install(kube, objects, record, within_s=30) == made
        kube.create(
            {
                "apiVersion": f"{names.GROUP}/v1beta1",
                "kind": names.KIND,
                "metadata": {"name": "theirs", "namespace": "default"},
                "spec": _LEAST,
            }
        )
        kept = uninstall(kube, record)
        assert kept == [f"{names.CRD}: in use by default/theirs"]
        assert not record.exists()
        assert kube.find("apps/v1/Deployment", "pgo", "postgres-operator") is None
        # Whoever comes next finds a definition that is not his, and leaves it where it is.
        again = install(kube, objects, record, within_s=30)
        assert names.CRD not in {one.name for one in again.made}
        kube.patch(names.KIND, "theirs", "default", {"metadata": {"finalizers": None}})
        assert uninstall(kube, record) == []
        kube.delete("CustomResourceDefinition", names.CRD)
        kube.delete("Namespace", "postgres-operator")
        left = everything(kube) - before
        assert left <= {
            "Namespace Namespace /postgres-operator",
            "ServiceAccount ServiceAccount postgres-operator/default",
            f"CustomResourceDefinition CustomResourceDefinition /{names.CRD}",
        }


_LEAST = {
    "postgresVersion": 16,
    "instances": [
        {
            "dataVolumeClaimSpec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            }
        }
    ],
}


@needs_kubectl
@pytest.mark.cluster
def test_somebody_elses_operator_is_not_taken_over(standin: ClusterHandle, tmp_path: Path) -> None:
    objects = rendered(write_repository(tmp_path / "tree"), tmp_path)
    deployment_of(objects)["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
    with Kube(standin.kubeconfig) as kube, pytest.raises(Conflict, match="stand-in"):
        install(kube, objects, tmp_path / "run.operator", within_s=30)
    assert not (tmp_path / "run.operator").exists()


def test_the_stand_ins_own_releases_can_be_rehearsed_with(tmp_path: Path) -> None:
    found = deployment_of(rendered("stand-in:5.8", tmp_path))
    assert found["metadata"]["labels"]["app.kubernetes.io/version"] == "5.8-stand-in"
    with pytest.raises(UsageProblem, match=r"unknown PGO release '4.7'; known: 5.8, 6.0"):
        rendered("stand-in:4.7", tmp_path)
