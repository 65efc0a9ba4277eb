"""Objects, errors, retries and deadlines, against a server process that misbehaves."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_pgo_eks.errors import ApiProblem, Conflict, NotFound, UsageProblem
from pytest_pgo_eks.kube import Kube, transport
from pytest_pgo_eks.secrets import Secret

from .conftest import NAMESPACE, Server, pod


def test_objects_are_applied_found_listed_patched_and_deleted(kube: Kube) -> None:
    made = kube.apply(pod("a", app="x"))
    assert made["metadata"]["uid"]
    kube.create(pod("b"))
    assert kube.get("Pod", "a", NAMESPACE)["metadata"]["labels"] == {"app": "x"}
    listed = kube.list("v1/Pod", NAMESPACE)
    assert [one["metadata"]["name"] for one in listed] == ["a", "b"]
    assert {(one["apiVersion"], one["kind"]) for one in listed} == {("v1", "Pod")}
    assert [p["metadata"]["name"] for p in kube.list("Pod", labels={"app": "x"})] == ["a"]
    kube.patch("Pod", "a", NAMESPACE, {"spec": {"nodeName": "n"}})
    kube.patch("Pod", "a", NAMESPACE, [{"op": "add", "path": "/extra", "value": 1}], type="json")
    seen = kube.get("Pod", "a", NAMESPACE)
    assert (seen["spec"]["nodeName"], seen["extra"]) == ("n", 1)
    kube.delete("Pod", "a", NAMESPACE, grace_s=0, propagation="Foreground")
    assert kube.find("Pod", "a", NAMESPACE) is None
    with pytest.raises(NotFound, match='pods "a" not found'):
        kube.delete("Pod", "a", NAMESPACE)


def test_a_deletion_can_be_bound_to_one_life_of_an_object(kube: Kube) -> None:
    uid = kube.apply(pod("a"))["metadata"]["uid"]
    with pytest.raises(Conflict, match="does not match"):
        kube.delete("Pod", "a", NAMESPACE, uid="another")
    kube.delete("Pod", "a", NAMESPACE, uid=uid)


def test_pages_are_followed(server: Server, kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_pgo_eks.kube.listing.PAGE", 2)
    for number in range(5):
        kube.create(pod(f"p{number}"))
    assert len(kube.list("Pod", NAMESPACE)) == 5
    assert len(server.seen("limit=2")) == 3


def test_a_page_token_that_expired_starts_over(
    server: Server, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_pgo_eks.kube.listing.PAGE", 2)
    for number in range(3):
        kube.create(pod(f"p{number}"))
    server.rule("delay", s=0, path="pods", method="GET")
    server.rule("status", code=410, path="pods", method="GET")
    assert len(kube.list("Pod", NAMESPACE)) == 3


def test_a_conflict_names_the_other_manager_and_the_field(kube: Kube) -> None:
    kube.create(pod("a") | {"_owner": "kubectl-edit"})
    with pytest.raises(Conflict) as caught:
        kube.apply(pod("a"))
    assert '.spec.replicas ("kubectl-edit")' in str(caught.value)
    assert "force" in str(caught.value)
    kube.apply(pod("a"), force=True)


def test_what_we_patched_ourselves_is_no_conflict(server: Server, kube: Kube) -> None:
    kube.create(pod("a") | {"_owner": kube.field_manager})
    kube.apply(pod("a"))
    assert [line.rpartition("force=")[2] for line in server.seen("PATCH")] == ["false", "true"]


def test_a_refusal_says_what_was_refused(server: Server, kube: Kube) -> None:
    server.rule("status", code=403, reason="Forbidden", message="u cannot get pods")
    with pytest.raises(ApiProblem) as caught:
        kube.get("Pod", "a", NAMESPACE)
    assert caught.value.status == 403
    assert caught.value.reason == "Forbidden"
    assert "/namespaces/ns/pods/a" in str(caught.value)
    assert "u cannot get pods" in str(caught.value)


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_a_passing_server_error_is_outlived_by_reads(server: Server, kube: Kube, code: int) -> None:
    kube.create(pod("a"))
    server.rule("status", code=code, times=2, method="GET")
    assert kube.get("Pod", "a", NAMESPACE)["metadata"]["name"] == "a"


def test_a_lasting_server_error_ends_with_its_status(server: Server, kube: Kube) -> None:
    server.rule("status", code=500, times=100, message="etcdserver: no leader")
    began = time.monotonic()
    with pytest.raises(ApiProblem, match="etcdserver: no leader") as caught:
        kube.get("Pod", "a", NAMESPACE)
    assert caught.value.status == 500
    assert time.monotonic() - began < 20
    assert len(server.seen("pods/a")) == 6


def test_a_write_is_never_sent_twice_when_its_fate_is_unknown(server: Server, kube: Kube) -> None:
    server.rule("drop", method="POST")
    with pytest.raises(ApiProblem, match="no answer"):
        kube.create(pod("a"))
    server.rule("status", code=500, method="POST")
    with pytest.raises(ApiProblem, match="500"):
        kube.create(pod("a"))
    assert len(server.seen("POST")) == 2


@pytest.mark.parametrize("do", ["drop", "truncate"])
def test_a_read_outlives_a_broken_connection(server: Server, kube: Kube, do: str) -> None:
    kube.create(pod("a"))
    server.rule(do, times=2, method="GET")
    assert kube.get("Pod", "a", NAMESPACE)["metadata"]["name"] == "a"


def test_retry_after_is_obeyed_also_for_writes(server: Server, kube: Kube) -> None:
    server.rule("status", code=429, headers={"Retry-After": "1"}, method="POST")
    began = time.monotonic()
    kube.create(pod("a"))
    assert time.monotonic() - began >= 1.0
    assert len(server.seen("POST")) == 2


def test_retry_after_beyond_the_deadline_ends_at_once(server: Server, kube: Kube) -> None:
    server.rule("status", code=429, headers={"Retry-After": "60"}, message="too many")
    began = time.monotonic()
    with pytest.raises(ApiProblem, match="too many") as caught:
        kube.get("Pod", "a", NAMESPACE)
    assert caught.value.status == 429
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(("do", "more"), [("hang", {}), ("drip", {"s": 0.05})])
def test_the_deadline_holds_for_silent_and_for_dripping_servers(
    server: Server, tmp_path: Path, do: str, more: dict[str, float]
) -> None:
    server.rule(do, times=100, **more)
    with Kube(server.kubeconfig(tmp_path / "k"), request_s=0.6) as kube:
        began = time.monotonic()
        with pytest.raises(ApiProblem):
            kube.get("Pod", "a", NAMESPACE)
        assert 0.5 < time.monotonic() - began < 10


def test_a_server_that_freezes_for_a_moment_is_waited_for(server: Server, kube: Kube) -> None:
    kube.create(pod("a"))
    with server.frozen(0.8):
        began = time.monotonic()
        assert kube.get("Pod", "a", NAMESPACE)
        assert kube.exec(NAMESPACE, "a", ["true"]).exit_status == 0
        assert time.monotonic() - began >= 0.7


def test_a_slow_answer_within_the_deadline_is_an_answer(server: Server, kube: Kube) -> None:
    kube.create(pod("a"))
    server.rule("delay", s=0.5)
    assert kube.get("Pod", "a", NAMESPACE)


def test_garbage_is_named_as_such(server: Server, kube: Kube) -> None:
    server.rule("garbage")
    with pytest.raises(ApiProblem, match=r"no JSON.*not what you wanted"):
        kube.get("Pod", "a", NAMESPACE)
    server.rule("garbage", text="[1]")
    with pytest.raises(ApiProblem, match="no object"):
        kube.get("Pod", "a", NAMESPACE)


def test_no_server_is_said_within_the_deadline(server: Server, tmp_path: Path) -> None:
    nowhere = Server("http://127.0.0.1:1", None).kubeconfig(tmp_path / "k")
    with Kube(nowhere, request_s=0.5) as kube, pytest.raises(ApiProblem, match="refused"):
        kube.get("Pod", "a", NAMESPACE)


def test_an_expired_token_is_read_anew_once(server: Server, tmp_path: Path) -> None:
    path = server.kubeconfig(tmp_path / "k")
    with Kube(path) as kube:
        kube.create(pod("a"))
        server.control("token", "the-next-token")
        with pytest.raises(ApiProblem) as caught:
            kube.get("Pod", "a", NAMESPACE)
        assert caught.value.status == 401
        server.kubeconfig(path, "the-next-token")
        assert kube.get("Pod", "a", NAMESPACE)
        assert kube.exec(NAMESPACE, "a", ["true"]).exit_status == 0
        server.control("token", "a-third-token")
        server.kubeconfig(path, "a-third-token")
        assert kube.exec(NAMESPACE, "a", ["true"]).exit_status == 0


def test_kinds_that_appear_later_are_found(server: Server, kube: Kube) -> None:
    with pytest.raises(NotFound, match="serves no kind 'PostgresCluster'"):
        kube.resolve("PostgresCluster")
    assert kube.find("PostgresCluster", "hippo", NAMESPACE) is None
    server.control("crd", True)
    found = kube.resolve("PostgresCluster")
    assert (found.version, found.plural, found.namespaced) == ("v1", "postgresclusters", True)
    older = kube.resolve("postgres-operator.crunchydata.com/v1beta1/PostgresCluster")
    assert older.version == "v1beta1"
    assert kube.list("PostgresCluster") == []
    assert kube.resolve("LimitRange").api_version == "v1"


def test_a_secret_shows_itself_in_no_repr(kube: Kube) -> None:
    encoded = {
        key: base64.b64encode(value.encode()).decode()
        for key, value in {
            "password": "correct horse",
            "host": "hippo-primary",
            "ca.crt": "PEM",
        }.items()
    }
    kube.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s", "namespace": NAMESPACE},
            "data": encoded,
        }
    )
    values = kube.secret_values(NAMESPACE, "s")
    assert values["password"] == "correct horse"
    assert isinstance(values["password"], Secret)
    assert "correct horse" not in repr(values)
    assert not isinstance(values["host"], Secret)
    assert "hippo-primary" in repr(values)


def test_events_of_one_object_come_in_order(kube: Kube) -> None:
    for number, (name, at) in enumerate(
        [("a", "2026-01-02"), ("a", "2026-01-01"), ("b", "2026-01-03")]
    ):
        kube.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"e{number}", "namespace": NAMESPACE},
                "involvedObject": {"kind": "Pod", "name": name, "uid": f"u{number}"},
                "lastTimestamp": at,
            }
        )
    found = kube.events(NAMESPACE, kind="Pod", name="a")
    assert [one["lastTimestamp"] for one in found] == ["2026-01-01", "2026-01-02"]
    assert len(kube.events(NAMESPACE, uid="u2")) == 1


def test_logs_take_their_options(kube: Kube) -> None:
    said = kube.logs(NAMESPACE, "a", container="database", previous=True, tail=5)
    assert "container=database&previous=true&tailLines=5" in said


def test_the_server_says_its_version(kube: Kube) -> None:
    assert kube.server_version() == "v1.34.0+chaos"


@pytest.mark.parametrize("version", ["36.0.0", "36.0.1"])
def test_clients_that_send_no_token_are_refused(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _name: version)
    with pytest.raises(UsageProblem, match=rf"kubernetes {version} .*36\.0\.2"):
        transport.client_version()


@pytest.mark.parametrize(
    "text", [None, "", "{", "clusters: []\n", "kind: Config\ncontexts: nonsense\n"]
)
def test_an_unusable_kubeconfig_is_a_usage_problem(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageProblem, match=r"kubeconfig .* cannot be used"):
        Kube(path)


def test_a_manifest_without_a_namespace_is_refused_before_it_is_sent(kube: Kube) -> None:
    manifest = pod("a")
    del manifest["metadata"]["namespace"]
    with pytest.raises(ValueError, match=r"needs metadata.namespace"):
        kube.apply(manifest)
    with pytest.raises(ValueError, match="lives in a namespace"):
        kube.get("Pod", "a")
    assert kube.requests == 0


def test_importing_the_package_imports_no_client() -> None:
    code = (
        "import sys, pytest_pgo_eks.kube, pytest_pgo_eks.kube.wait\n"
        "heavy = {'kubernetes', 'urllib3', 'yaml', 'aiohttp', 'websocket'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_everything_works_over_tls(tls_kube: Kube) -> None:
    tls_kube.create(pod("a"))
    assert tls_kube.get("Pod", "a", NAMESPACE)["metadata"]["name"] == "a"
    assert tls_kube.exec(NAMESPACE, "a", ["echo", "hello"]).text == "hello\n"


def test_an_unknown_authority_is_refused(
    tls_server: Server, tls_kube: Kube, tmp_path: Path
) -> None:
    path = Server(tls_server.url, None).kubeconfig(tmp_path / "no-ca")
    with Kube(path, request_s=1) as kube, pytest.raises(ApiProblem, match=r"(?i)certificate"):
        kube.get("Pod", "a", NAMESPACE)
