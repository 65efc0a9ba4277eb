"""kind, driven: what it is called with, what it refuses, and a run on it from end to end.

Behind the program that stands in for kind the stand-in cluster comes up. What kind itself makes of
these calls is not shown here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_pgo_eks.clusters import engine, kind_nodes
from pytest_pgo_eks.clusters.base import ClusterHandle, LedgerEntry
from pytest_pgo_eks.clusters.kind import KindProvider, export_logs
from pytest_pgo_eks.clusters.local import LocalProvider
from pytest_pgo_eks.errors import ClusterProblem, UsageProblem
from pytest_pgo_eks.local.preflight import postgres_versions
from pytest_pgo_eks.progress import silent
from pytest_pgo_eks.settings import Settings

from .conftest import MANIFEST, Programs

RUN = (sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", "-p", "no:allure_pytest")
OPERATOR = Path(__file__).parents[2] / "features" / "deployment" / "operator.feature"
DIGEST = "sha256:44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d"

Bad = tuple[str, tuple[str, ...], dict[str, str], dict[str, Any], str]
BAD: tuple[Bad, ...] = (
    ("no kind", ("docker",), {}, {}, r"kind is not on PATH: .*--pgo-kind-binary"),
    ("no engine", ("kind",), {}, {}, r"docker and podman are not on PATH.*--cluster=local"),
    (
        "no podman, which is asked for",
        ("kind", "docker"),
        {"KIND_EXPERIMENTAL_PROVIDER": "podman"},
        {},
        r"podman is not on PATH",
    ),
    (
        "another engine",
        ("kind", "docker"),
        {"KIND_EXPERIMENTAL_PROVIDER": "nerdctl"},
        {},
        r"only docker and podman",
    ),
    (
        "the engine is down",
        ("kind", "docker"),
        {"FAKE_DOCKER_VERSION": "down"},
        {},
        r"docker is installed but does not answer \(Cannot connect.*systemctl start docker",
    ),
    (
        "the engine is too old",
        ("kind", "docker"),
        {"FAKE_DOCKER_VERSION": "19.3.2"},
        {},
        r"docker 19\.3\.2 is too old; 20\.10 or newer",
    ),
    (
        "kind is too old",
        ("kind", "docker"),
        {"FAKE_KIND_VERSION": "0.17.0"},
        {},
        r"kind 0\.17\.0 is too old; 0\.27",
    ),
    (
        "no image of that version is known",
        ("kind", "docker"),
        {},
        {"kubernetes_version": "1.29"},
        r"no node image of that version is known for kind 0\.33\.0 \(1\.37\.0, .*--pgo-kind-image",
    ),
    (
        "an image to load is not there",
        ("kind", "docker"),
        {"FAKE_IMAGES": "pgo:5.8"},
        {"load_images": "pgo:5.8,postgres:16"},
        r"docker has no image postgres:16; pull or build it",
    ),
    (
        "a mirror without a scheme",
        ("kind", "docker"),
        {},
        {"registry_mirror": "docker.io=mirror:5000"},
        r"'docker\.io=mirror:5000' is not of the form",
    ),
)


@pytest.mark.parametrize("case", BAD, ids=[one[0] for one in BAD])
def test_bad_input_is_one_line_and_creates_nothing(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, case: Bad
) -> None:
    _, there, environment, given, message = case
    programs.put(*there)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageProblem, match=message) as caught:
        KindProvider().preflight(Settings("kind", **given))
    assert "\n" not in str(caught.value)
    assert not [call for call in programs.calls("kind") if call != ["version"]]


def entry(place: Path) -> Path:
    path = place / "ledger.json"
    LedgerEntry("kind", 4711).write(path)
    return path


class TestCreate:
    def test_an_image_that_cannot_be_pulled(
        self, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        programs.put("kind", "docker")
        monkeypatch.setenv("FAKE_CREATE_ERROR", 'failed to pull image "kindest/node:x": timeout')
        with pytest.raises(UsageProblem, match=r"cannot pull its node image.*--pgo-kind-image"):
            KindProvider().create(Settings("kind"), silent(), entry(tmp_path))

    def test_a_failure_leaves_the_nodes_logs_and_a_way_to_remove_it(
        self, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        programs.put("kind", "docker")
        monkeypatch.setenv("FAKE_CREATE_ERROR", "node is not ready")
        ledger = entry(tmp_path)
        given = Settings("kind", kubernetes_version="v1.34", registry_mirror="docker.io=http://m:5")
        with pytest.raises(ClusterProblem, match=r"node is not ready; logs of its nodes: (.*)$"):
            KindProvider().create(given, silent(), ledger)
        found = LedgerEntry.read(ledger)
        assert found.state_dir is not None
        assert (Path(found.state_dir) / "logs" / "kubelet.log").exists()
        create = next(call for call in programs.calls("kind") if call[0] == "create")
        assert create[-2:] == ["--image", f"docker.io/kindest/node:v1.34.11@{DIGEST}"]
        assert create[create.index("--kubeconfig") + 1] == f"{found.state_dir}/kubeconfig"
        assert f"delete cluster --name {found.name}" in found.remove
        assert KindProvider().sweep(found, silent()) == "absent"


def test_the_configuration_has_three_zones_and_mirrors(tmp_path: Path) -> None:
    mirrored = kind_nodes.mirrors("docker.io=http://mirror:5000, quay.io=https://q")
    path = kind_nodes.configuration(tmp_path, mirrored)
    document = yaml.safe_load(path.read_text("utf-8"))
    roles = [one["role"] for one in document["nodes"]]
    assert roles == ["control-plane", "worker", "worker", "worker"]
    zones = [one["labels"]["topology.kubernetes.io/zone"] for one in document["nodes"][1:]]
    assert zones == ["zone-a", "zone-b", "zone-c"]
    mounts = [one["extraMounts"][0]["hostPath"] for one in document["nodes"]]
    assert mounts == [str(tmp_path / "certs.d")] * 4
    assert "/etc/containerd/certs.d" in document["containerdConfigPatches"][0]
    hosts = (tmp_path / "certs.d" / "docker.io" / "hosts.toml").read_text("utf-8")
    assert '[host."http://mirror:5000"]' in hosts
    assert "&" not in path.read_text("utf-8")


def test_without_mirrors_nothing_of_containerd_is_touched(tmp_path: Path) -> None:
    document = yaml.safe_load(kind_nodes.configuration(tmp_path, {}).read_text("utf-8"))
    assert "containerdConfigPatches" not in document


@pytest.mark.parametrize(
    ("release", "version", "expected"),
    [
        ((0, 33, 0), "1.35", "v1.35.8@sha256:07b2536e"),
        ((0, 30, 0), "1.34", "v1.34.0@sha256:7416a61b"),
        ((0, 30, 0), "1.33.4", "v1.33.4@sha256:25a6018e"),
    ],
)
def test_an_image_belongs_to_a_release_of_kind(
    release: tuple[int, ...], version: str, expected: str
) -> None:
    assert expected in str(kind_nodes.node_image(release, version, None))


def test_kind_is_left_its_own_image_and_a_named_one_wins() -> None:
    assert kind_nodes.node_image((0, 99), None, None) is None
    assert kind_nodes.node_image((0, 33), "1.34", "mine:1") == "mine:1"


def test_podman_is_used_where_there_is_no_docker(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.put("podman")
    monkeypatch.setenv("FAKE_DOCKER_VERSION", "5.6.0")
    used = engine.find()
    assert (used.name, used.version) == ("podman", "5.6.0")
    assert used.environment == {"KIND_EXPERIMENTAL_PROVIDER": "podman"}
    assert programs.calls("podman")[-1] == ["info", "--format", "{{.Version.Version}}"]


def test_the_nodes_logs_explain_a_failure(programs: Programs, tmp_path: Path) -> None:
    programs.put("kind", "docker")
    remove = f"{programs.path}/kind delete cluster --name mine --kubeconfig k"
    handle = ClusterHandle("mine", "kind", tmp_path / "k", hints=("look", remove))
    export_logs(handle, tmp_path / "logs")
    assert (tmp_path / "logs" / "kubelet.log").exists()
    assert programs.calls("kind") == [["export", "logs", f"{tmp_path}/logs", "--name", "mine"]]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [*RUN, "--cluster=kind", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.cluster
def test_a_run_goes_end_to_end_and_removes_what_a_killed_one_left(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        LocalProvider().preflight(Settings("local"))
    except UsageProblem as problem:
        pytest.skip(f"this machine cannot run the stand-in cluster: {problem}")
    programs.put("kind", "docker")
    monkeypatch.setenv("FAKE_CREATE_KILLS", "1")
    killed = run(str(OPERATOR), "-m", "smoke", cwd=tmp_path)
    monkeypatch.delenv("FAKE_CREATE_KILLS")
    assert killed.returncode == -9, killed.stdout + killed.stderr
    (left,) = (programs.home / "clusters").iterdir()

    monkeypatch.setenv("FAKE_IMAGES", "pgo:5.8")
    small = tmp_path / "small.yaml"
    small.write_text(MANIFEST.replace("VERSION", str(max(postgres_versions()))), "utf-8")
    flags = ("--pgo-load-images=pgo:5.8", f"--pgo-manifest={small}", "--pgo-lease=20")
    done = run(str(OPERATOR), "-m", "smoke", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"removed cluster {left.name}, which a run that was killed had left" in done.stdout
    assert "3 nodes in 3 zones" in done.stdout
    assert not list((programs.home / "clusters").iterdir())
    assert not list((tmp_path / "state" / "pytest-pgo-eks" / "kind").iterdir())
    names = [call[call.index("--name") + 1] for call in programs.calls("kind") if "--name" in call]
    assert names[0] == left.name
    assert names[1] == left.name
    assert len(set(names[2:])) == 1
    assert ["load", "docker-image", "pgo:5.8", "--name", names[-1]] in programs.calls("kind")
    # The user's own file was never made.
    assert not (tmp_path / "home" / ".kube").exists()
