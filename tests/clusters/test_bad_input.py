"""What cannot work is said in one line with its remedy, and nothing is created before."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pytest_pgo_eks.clusters import rights
from pytest_pgo_eks.clusters.kubeconfig import KubeconfigProvider
from pytest_pgo_eks.errors import ApiProblem, UsageProblem
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.settings import Settings
from pytest_pgo_eks.settings_install import InstallSettings

from .api import PGO, Api, Object, node, ready, serving, storage_class

NAMESPACE = "tests-of-ours"
Undo = Callable[[], object]


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.fixture
def all_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for no right, which takes longer than all other questions together."""
    monkeypatch.setattr(rights, "missing", lambda *_: [])


def settings(kubeconfig: Path | None, **more: Any) -> Settings:
    return Settings("kubeconfig", kubeconfig=kubeconfig, **{"namespace": NAMESPACE, **more})


def refusal(given: Settings) -> str:
    with pytest.raises(UsageProblem) as caught:
        KubeconfigProvider().preflight(given)
    said = str(caught.value)
    assert "\n" not in said
    return said


def everything(api: Api) -> list[tuple[str, str | None, str]]:
    kinds = ("Namespace", "Pod", "ServiceAccount", "Role", "NetworkPolicy", "PostgresCluster")
    return sorted(
        (kind, one["metadata"].get("namespace", ""), one["metadata"]["name"])
        for kind in kinds
        for one in api.kube.list(kind)
    )


def test_a_good_cluster_is_not_refused(api: Api) -> None:
    before = everything(api)
    KubeconfigProvider().preflight(settings(api.kubeconfig))
    assert everything(api) == before


# -- the way to the server ------------------------------------------------------------------------


def test_no_kubeconfig_at_all() -> None:
    assert "--pgo-kubeconfig=FILE" in refusal(settings(None))


def test_a_kubeconfig_that_is_missing(tmp_path: Path) -> None:
    assert f"no kubeconfig {tmp_path}/gone" in refusal(settings(tmp_path / "gone"))


def test_several_files_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/a:/b")
    assert "KUBECONFIG names 2 files" in refusal(settings(None))


@pytest.mark.parametrize("text", ["{", "[]", "clusters: 5", "just words", ""])
def test_a_kubeconfig_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken"
    path.write_text(text, "utf-8")
    assert refusal(settings(path)).startswith(f"kubeconfig {path}")


def test_a_context_that_is_unknown(api: Api) -> None:
    said = refusal(settings(api.kubeconfig, context="stand-im"))
    assert "no context 'stand-im' (did you mean 'stand-in'?); it has stand-in" in said


def test_a_server_that_does_not_listen(api: Api, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    path = api.with_user(tmp_path / "k", {"token": "x"}, server=f"https://127.0.0.1:{port}")
    said = refusal(settings(path))
    assert f"the server https://127.0.0.1:{port} cannot be reached" in said
    assert "firewall" in said


def test_a_token_that_has_expired(api: Api, tmp_path: Path) -> None:
    path = api.with_user(tmp_path / "k", {"token": "a-token-of-yesterday"})
    said = refusal(settings(path))
    assert "does not accept the credentials (a token)" in said
    assert "log in again" in said


def test_a_token_that_expires_in_the_middle(api: Api, tmp_path: Path) -> None:
    path = api.with_user(tmp_path / "k", {"token": "a-token-of-yesterday"})
    with Kube(path) as kube, pytest.raises(ApiProblem, match=r"was read again.*log in again"):
        kube.list("Pod", "default")


def test_a_program_for_credentials_that_is_missing(api: Api, tmp_path: Path) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-login"}
    path = api.with_user(tmp_path / "k", {"exec": plugin})
    assert "needs the program 'no-such-login', which is not on PATH" in refusal(settings(path))


def certificate(days: int) -> tuple[bytes, bytes]:
    """Return certificate and key for 127.0.0.1, signed by itself, that ends ``days`` from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=20))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    return made.public_bytes(pem), key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)


@pytest.mark.parametrize("inline", [True, False])
def test_a_client_certificate_that_has_expired(api: Api, tmp_path: Path, inline: bool) -> None:
    made, key = certificate(-2)
    if inline:
        user = {
            "client-certificate-data": base64.b64encode(made).decode(),
            "client-key-data": base64.b64encode(key).decode(),
        }
    else:
        (tmp_path / "crt").write_bytes(made)
        (tmp_path / "key").write_bytes(key)
        user = {"client-certificate": "crt", "client-key": "key"}
    path = api.with_user(tmp_path / "k", user)
    day = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    said = refusal(settings(path))
    assert f"its client certificate expired on {day:%Y-%m-}" in said
    assert "fetch a new kubeconfig" in said


def test_a_server_whose_certificate_has_expired(api: Api, tmp_path: Path) -> None:
    made, key = certificate(-2)
    (tmp_path / "crt").write_bytes(made)
    (tmp_path / "key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    with socket.create_server(("127.0.0.1", 0)) as door:

        def answer() -> None:
            while True:
                try:
                    raw = door.accept()[0]
                except OSError:
                    return
                with raw, contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True):
                    pass

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"https://127.0.0.1:{door.getsockname()[1]}"
        path = api.with_user(tmp_path / "k", {"token": "x"}, server=url)
        text = path.read_text("utf-8").replace(str(api.authority), str(tmp_path / "crt"))
        path.write_text(text, "utf-8")
        try:
            said = refusal(settings(path))
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert f"the certificate of the server {url} has expired" in said


# -- what the cluster is and has ------------------------------------------------------------------


def deployment(namespace: str, watched: str | None = None) -> Object:
    env = [{"name": "PGO_TARGET_NAMESPACES", "value": watched}] if watched else []
    labels = {f"{PGO}/control-plane": "postgres-operator"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "pgo", "namespace": namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "operator", "image": "pgo:x", "env": env}]},
            },
        },
    }


def named(kind: str, name: str, **more: Any) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **more}}


def cluster(name: str, namespace: str) -> Object:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": f"{PGO}/v1beta1",
        "kind": "PostgresCluster",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"postgresVersion": 16, "instances": [{"dataVolumeClaimSpec": claim}]},
    }


def put(*objects: Object) -> Callable[[Api], Undo]:
    def do(api: Api) -> Undo:
        for one in objects:
            api.kube.create(one)

        def undo() -> None:
            for one in reversed(objects):
                meta = one["metadata"]
                api.kube.delete(one["kind"], meta["name"], meta.get("namespace"))

        return undo

    return do


def changed(kind: str, names: list[str], patch: Object, back: Object) -> Callable[[Api], Undo]:
    sub = "status" if "status" in patch else None

    def do(api: Api) -> Undo:
        for name in names:
            api.kube.patch(kind, name, None, patch, subresource=sub)
        return lambda: [api.kube.patch(kind, name, None, back, subresource=sub) for name in names]

    return do


def terminating(api: Api) -> Undo:
    """Delete a namespace that nobody finalizes."""
    api.kube.create(named("Namespace", "going"))
    api.kube.delete("Namespace", "going")
    return lambda: None


NODES = ["node-1", "node-2", "node-3"]
ZONE = "topology.kubernetes.io/zone"
CLASS = "storageclass.kubernetes.io/is-default-class"

Case = tuple[str, Callable[[Api], Undo], dict[str, Any], tuple[str, ...]]
CASES: tuple[Case, ...] = (
    (
        "the namespace is being deleted",
        terminating,
        {"namespace": "going"},
        ("namespace going is being deleted", "--pgo-namespace"),
    ),
    (
        "the namespace holds another run",
        put(
            named(
                "Namespace",
                "taken",
                labels={"pytest-pgo-eks/run": "r1"},
                annotations={"pytest-pgo-eks/by": "a run on another machine"},
            )
        ),
        {"namespace": "taken"},
        ("holds run r1 of a run on another machine", "--pgo-reuse=taken", "kubectl delete"),
    ),
    (
        "the namespace has such a cluster",
        put(named("Namespace", "shop"), cluster("hippo", "shop")),
        {"namespace": "shop"},
        ("has a PostgresCluster hippo that is not ours", "--pgo-adopt=shop/hippo"),
    ),
    (
        "the adopted cluster is not there",
        put(named("Namespace", "zoo"), cluster("rhino", "zoo")),
        {"adopt": "zoo/hippo"},
        ("no PostgresCluster hippo in namespace zoo", "there are: zoo/rhino"),
    ),
    (
        "two operators",
        put(named("Namespace", "second"), deployment("second")),
        {},
        ("2 operators act on namespace", "pgo in postgres-operator", "pgo in second"),
    ),
    (
        "an operator is there already",
        put(named("Namespace", "third"), deployment("third", watched="elsewhere")),
        {"install": InstallSettings(source="/somewhere")},
        ("an operator acts on namespace", "without --pgo-install"),
    ),
    (
        "another PGO's definition",
        changed(
            "CustomResourceDefinition",
            [f"postgresclusters.{PGO}"],
            {"metadata": {"annotations": {"seen": "by-a-test"}}},
            {"metadata": {"annotations": {"seen": None}}},
        ),
        {"manifest": "v2.yaml"},
        ("the manifest is a PostgresCluster v2", "is of another PGO"),
    ),
    (
        "no default class",
        changed(
            "StorageClass",
            ["plain"],
            {"metadata": {"annotations": {CLASS: "false"}}},
            {"metadata": {"annotations": {CLASS: "true"}}},
        ),
        {},
        ("no default StorageClass", "--pgo-storage-class"),
    ),
    (
        "nodes without a zone",
        changed(
            "Node",
            NODES,
            {"metadata": {"labels": {ZONE: None}}},
            {"metadata": {"labels": {ZONE: "zone-a"}}},
        ),
        {},
        (f"no node has the label {ZONE}", "kubectl label node node-1"),
    ),
    (
        "no node takes pods",
        changed(
            "Node", NODES, {"spec": {"unschedulable": True}}, {"spec": {"unschedulable": None}}
        ),
        {},
        ("no node of the cluster is ready", "untaint"),
    ),
    (
        "too little memory",
        changed("Node", NODES, ready("200Mi"), ready()),
        {},
        ("3 instances need 300 MiB of memory each", "room for 0", "larger nodes"),
    ),
    (
        "too few nodes",
        changed(
            "Node",
            NODES[:2],
            {"spec": {"unschedulable": True}},
            {"spec": {"unschedulable": None}},
        ),
        {"manifest": "apart.yaml"},
        ("keeps 3 instances on different nodes, but only 1", "add nodes"),
    ),
    (
        "labels of production",
        changed(
            "Node",
            ["node-2"],
            {"metadata": {"labels": {"example.com/environment": "production"}}},
            {"metadata": {"labels": {"example.com/environment": None}}},
        ),
        {},
        ("environment=production of Node 'node-2'", "--pgo-allow-production"),
    ),
)
MANIFESTS = {
    "v2.yaml": f"apiVersion: {PGO}/v2\nkind: PostgresCluster\nmetadata: {{name: mine}}\nspec: {{}}\n",
    "apart.yaml": f"""
apiVersion: {PGO}/v1beta1
kind: PostgresCluster
metadata: {{name: mine}}
spec:
  instances:
    - replicas: 3
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
""",
}


@pytest.mark.usefixtures("all_rights")
@pytest.mark.parametrize(
    ("do", "given", "words"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_cluster_that_cannot_be_used(
    api: Api,
    tmp_path: Path,
    do: Callable[[Api], Undo],
    given: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    if name := given.get("manifest"):
        path = tmp_path / name
        path.write_text(MANIFESTS[name], "utf-8")
        given = {**given, "manifest": path}
    undo = do(api)
    before = everything(api)
    try:
        said = refusal(settings(api.kubeconfig, **given))
        assert everything(api) == before
    finally:
        undo()
    for word in words:
        assert word in said


def test_production_may_be_allowed(api: Api, all_rights: None, tmp_path: Path) -> None:
    token = {"token": "admin-of-the-test"}
    path = api.with_user(tmp_path / "k", token, context="shop-prod-eu")
    assert "the context 'shop-prod-eu' looks like production" in refusal(settings(path))
    KubeconfigProvider().preflight(settings(path, allow_production=True))


def test_missing_rights_are_listed_with_the_file_that_grants_them(api: Api, tmp_path: Path) -> None:
    some = [
        rule
        for rule in rights.rules(("cluster", "own", "operator"), namespaces=True)
        if "secrets" not in rule["resources"] and "nodes" not in rule["resources"]
    ]
    said = refusal(settings(api.as_account(tmp_path, "lacking", some)))
    assert f"get secrets in {NAMESPACE} (to log in as applications do)" in said
    assert "list nodes (to know zones" in said
    assert "kubectl apply -f" in said
    assert "rbac/whole-cluster.yaml" in said
    # What is granted is not on the list.
    assert "create pods in" not in said


def test_a_cluster_without_pgo_is_told_so(api: Api) -> None:
    from pytest_pgo_eks.clusters import operators

    class Bare:
        def list(self, *_: object, **__: object) -> list[Object]:
            return []

        def find(self, *_: object) -> None:
            return None

    bare: Any = Bare()
    with pytest.raises(UsageProblem, match=r"serves no PostgresCluster.*--pgo-install"):
        operators.refuse(bare, NAMESPACE, api_version=None, installing=False)


def test_what_the_fixture_puts_is_what_a_good_cluster_has() -> None:
    assert node("n", "z")["metadata"]["labels"] == {ZONE: "z"}
    assert storage_class()["metadata"]["annotations"] == {CLASS: "true"}
