"""Who may do what: tokens, roles, reviews, impersonation, and no escalation."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from standin.server import ca_file

from local_apiserver.api_bench import Bench, config_map, pod, served
from pytest_pgo_eks.local.apiclient import ApiClient
from pytest_pgo_eks.local.apiserver import Identity
from pytest_pgo_eks.local.objects import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    CONFIG_MAP,
    LEASE,
    NODE,
    POD,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE_ACCOUNT,
    Kind,
    Obj,
)

_RBAC = "rbac.authorization.k8s.io"
_REVIEW = Kind(
    "authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", False
)
_TOKEN_REVIEW = Kind("authentication.k8s.io/v1", "TokenReview", "tokenreviews", namespaced=False)


def _role(name: str, *rules: tuple[str, str, str], names: list[str] | None = None) -> Obj:
    made: list[Obj] = [
        {"apiGroups": [group], "resources": what.split(), "verbs": verbs.split()}
        for group, what, verbs in rules
    ]
    for rule in made:
        if names:
            rule["resourceNames"] = names
    return {"metadata": {"name": name}, "rules": made}


def _binding(name: str, role: str, subject: Obj, kind: str = "Role") -> Obj:
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": role},
        "subjects": [subject],
    }


async def _token(bench: Bench, account: str = "default", **spec: Any) -> str:
    path = SERVICE_ACCOUNT.path("default", account, "token")
    issued = await bench.admin.request("POST", path, body={"spec": spec})
    assert issued["kind"] == "TokenRequest"
    found: str = issued["status"]["token"]
    return found


async def _may(client: ApiClient, verb: str, resource: str, **more: str) -> bool:
    asked = {"verb": verb, "resource": resource, **more}
    found = await client.create(_REVIEW, {"spec": {"resourceAttributes": asked}})
    allowed: bool = found["status"]["allowed"]
    return allowed


@served()
async def test_nobody_without_a_token_and_nobody_with_a_wrong_one(bench: Bench) -> None:
    anonymous, wrong = bench.as_token(None), bench.as_token("guess")
    with bench.refused(
        403,
        "Forbidden",
        'pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" '
        'in the namespace "default"',
    ):
        await anonymous.list(POD, "default")
    assert (await anonymous.request("GET", "/version"))["major"] == "1"
    with bench.refused(403, "Forbidden", 'User "system:anonymous" cannot get path "/api/v1"'):
        await anonymous.request("GET", "/api/v1")
    for path in ("/version", POD.path("default")):
        with bench.refused(401, "Unauthorized", "Unauthorized"):
            await wrong.request("GET", path)


@served()
async def test_a_service_account_may_do_what_its_roles_say(bench: Bench) -> None:
    admin = bench.admin
    client = bench.as_token(await _token(bench))
    who = "system:serviceaccount:default:default"
    with bench.refused(403, "Forbidden", f'pods "web" is forbidden: User "{who}" cannot get'):
        await client.get(POD, "web", "default")
    rules = (("", "pods", "get list"), ("", "pods/status", "patch"))
    await admin.create(ROLE, _role("reader", *rules), "default")
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
    await admin.create(ROLE_BINDING, _binding("reader", "reader", subject), "default")
    await admin.create(POD, pod(), "default")
    assert (await client.get(POD, "web", "default"))["kind"] == "Pod"
    await client.patch(POD, "web", "default", {"status": {"phase": "Running"}}, sub="status")
    for resource, denied in (
        (POD.path("default", "web"), 'cannot delete resource "pods"'),
        (POD.path("kube-system", "web"), 'in the namespace "kube-system"'),
        (CONFIG_MAP.path("default"), 'cannot deletecollection resource "configmaps"'),
        (NODE.path(None, "n"), "at the cluster scope"),
    ):
        with bench.refused(403, "Forbidden", denied):
            await client.request("DELETE", resource)
    with bench.refused(403, "Forbidden", 'cannot create resource "pods/exec"'):
        await client.request("POST", POD.path("default", "web", "exec"))
    with bench.refused(403, "Forbidden", 'cannot watch resource "pods"'):
        async for _ in client.watch(POD, "default", resource_version="0"):
            raise AssertionError("watched")
    await admin.delete(ROLE_BINDING, "reader", "default")
    with bench.refused(403, "Forbidden"):
        await client.get(POD, "web", "default")


@served(tokens={"alice": Identity("alice", ("team",))})
async def test_groups_cluster_roles_and_single_names(bench: Bench) -> None:
    admin, alice = bench.admin, bench.as_token("alice")
    role = _role("one-map", ("", "configmaps", "get"), names=["settings"])
    await admin.create(CLUSTER_ROLE, role)
    group = {"kind": "Group", "name": "team"}
    binding = _binding("team", "one-map", group, kind="ClusterRole")
    for name in ("settings", "other"):
        await admin.create(CONFIG_MAP, config_map(name), "default")
    assert not await _may(alice, "get", "configmaps", name="settings", namespace="default")
    await admin.create(ROLE_BINDING, binding, "default")
    assert await _may(alice, "get", "configmaps", name="settings", namespace="default")
    assert not await _may(alice, "get", "configmaps", name="settings", namespace="kube-system")
    await admin.create(CLUSTER_ROLE_BINDING, binding)
    assert await _may(alice, "get", "configmaps", name="settings", namespace="kube-system")
    assert not await _may(alice, "get", "configmaps", name="other", namespace="default")
    assert not await _may(alice, "list", "configmaps", namespace="default")
    await alice.get(CONFIG_MAP, "settings", "default")
    with bench.refused(403, "Forbidden", 'configmaps "other" is forbidden'):
        await alice.get(CONFIG_MAP, "other", "default")


@served(only_ours="a real server remembers a good token for ten seconds")
async def test_tokens_end_with_their_time_their_account_and_their_pod(bench: Bench) -> None:
    admin = bench.admin
    await admin.create(SERVICE_ACCOUNT, {"metadata": {"name": "app"}}, "default")
    made = pod()
    made["spec"]["serviceAccountName"] = "app"
    await admin.create(POD, made, "default")
    await admin.create(POD, pod("other"), "default")
    elsewhose = {"kind": "Pod", "apiVersion": "v1", "name": "other"}
    with bench.refused(400, "BadRequest", "pod running with different serviceaccount name"):
        await _token(bench, "app", boundObjectRef=elsewhose)
    plain = bench.as_token(await _token(bench, "app"))
    ref = {"kind": "Pod", "apiVersion": "v1", "name": "web"}
    bound = bench.as_token(await _token(bench, "app", boundObjectRef=ref))
    elsewhere = bench.as_token(await _token(bench, "app", audiences=["vault"]))
    me = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    found = (await bound.request("POST", me, body={}))["status"]["userInfo"]
    assert found["username"] == "system:serviceaccount:default:app"
    assert found["groups"] == [
        "system:serviceaccounts",
        "system:serviceaccounts:default",
        "system:authenticated",
    ]
    assert found["extra"]["authentication.kubernetes.io/pod-name"] == ["web"]
    with bench.refused(401, "Unauthorized"):
        await elsewhere.request("POST", me, body={})
    await admin.delete(POD, "web", "default")
    with bench.refused(401, "Unauthorized"):
        await bound.request("POST", me, body={})
    await plain.request("POST", me, body={})
    await admin.delete(SERVICE_ACCOUNT, "app", "default")
    await admin.create(SERVICE_ACCOUNT, {"metadata": {"name": "app"}}, "default")
    with bench.refused(401, "Unauthorized"):
        await plain.request("POST", me, body={})
    with bench.refused(422, "Invalid", "may not specify a duration less than 10 minutes"):
        await _token(bench, expirationSeconds=10)
    authenticator = bench.server.authenticator
    account = await admin.get(SERVICE_ACCOUNT, "default", "default")
    short, ends = authenticator.issue(account, seconds=-1)
    assert ends < time.time()
    assert authenticator.check(short) is None
    head, body, signature = (await _token(bench)).split(".")
    assert authenticator.check(f"{head}.{body}.{signature}") is not None
    forged = f"{head}.{body}.{signature[:-4]}AAAA"
    assert authenticator.check(forged) is None
    assert authenticator.check(f"{head}.{body[:-2]}.{signature}") is None


@served()
async def test_a_pods_own_token_outlives_what_it_is_said_to_live(bench: Bench) -> None:
    """Clients that never read a renewed token go on working, as on a server's default settings."""
    made = await bench.admin.create(POD, pod("old"), "default")
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "old", "uid": made["metadata"]["uid"]}
    for asked, lives_s in ((3607, 365 * 86400), (3600, 3600)):
        token = await _token(bench, expirationSeconds=asked, boundObjectRef=reference)
        middle = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        assert abs(claims["exp"] - claims["iat"] - lives_s) < 120
    await bench.admin.delete(POD, "old", "default")


@served(only_ours="beside a real server it is a controller that fills the Secret in")
async def test_a_secret_can_hold_a_token(bench: Bench) -> None:
    admin = bench.admin
    annotations = {"kubernetes.io/service-account.name": "default"}
    made = {
        "metadata": {"name": "token", "annotations": annotations},
        "type": "kubernetes.io/service-account-token",
    }
    data = (await admin.create(SECRET, made, "default"))["data"]
    assert base64.b64decode(data["namespace"]) == b"default"
    assert base64.b64decode(data["ca.crt"]) == ca_file(bench.server).read_bytes()
    client = bench.as_token(base64.b64decode(data["token"]).decode())
    assert not await _may(client, "get", "pods", namespace="default")
    await admin.delete(SECRET, "token", "default")
    with bench.refused(401, "Unauthorized"):
        await _may(client, "get", "pods", namespace="default")
    made["metadata"] = {"name": "token", "annotations": {}}
    with bench.refused(422, "Invalid", "kubernetes.io/service-account.name"):
        await admin.create(SECRET, made, "default")


@served()
async def test_token_reviews_tell_who_it_is(bench: Bench) -> None:
    token = await _token(bench)
    found = await bench.admin.create(_TOKEN_REVIEW, {"spec": {"token": token}})
    assert found["status"]["authenticated"] is True
    assert found["status"]["user"]["username"] == "system:serviceaccount:default:default"
    found = await bench.admin.create(_TOKEN_REVIEW, {"spec": {"token": "guess"}})
    assert "authenticated" not in found["status"]
    assert found["status"]["error"]


@served(tokens={"alice": Identity("alice")})
async def test_nobody_grants_more_than_he_has(bench: Bench) -> None:
    admin, alice = bench.admin, bench.as_token("alice")
    rules = ((_RBAC, "roles rolebindings", "create update get"), ("", "pods", "get"))
    await admin.create(ROLE, _role("granter", *rules), "default")
    subject = {"kind": "User", "name": "alice"}
    await admin.create(ROLE_BINDING, _binding("granter", "granter", subject), "default")
    await alice.create(ROLE, _role("small", ("", "pods", "get")), "default")
    with bench.refused(
        403, "Forbidden", "is attempting to grant RBAC permissions not currently held"
    ):
        await alice.create(ROLE, _role("big", ("", "secrets", "get")), "default")
    await admin.create(ROLE, _role("big", ("", "secrets", "get")), "default")
    with bench.refused(403, "Forbidden", "not currently held"):
        await alice.create(ROLE_BINDING, _binding("mine", "big", subject), "default")
    await alice.create(ROLE_BINDING, _binding("mine", "small", subject), "default")
    with bench.refused(422, "Invalid", "cannot change roleRef"):
        await admin.patch(ROLE_BINDING, "mine", "default", {"roleRef": {"name": "big"}})


@served(tokens={"alice": Identity("alice")})
async def test_acting_as_somebody_else_needs_the_right_to(bench: Bench) -> None:
    admin = bench.admin
    url = admin.url + "/apis/authentication.k8s.io/v1/selfsubjectreviews"

    async def whoami(token: str, **headers: str) -> tuple[int, Any]:
        sent = {"Authorization": f"Bearer {token}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with admin._open().post(url, json={}, headers=sent) as answer:
            body = await answer.json()
            return answer.status, body.get("status")

    token = admin._token or ""
    status, found = await whoami(token, Impersonate_User="bob", Impersonate_Group="dev")
    assert (status, found["userInfo"]["username"]) == (201, "bob")
    assert found["userInfo"]["groups"] == ["dev", "system:authenticated"]
    _, found = await whoami(token, Impersonate_User="system:serviceaccount:default:default")
    assert "system:serviceaccounts:default" in found["userInfo"]["groups"]
    status, _ = await whoami("alice", Impersonate_User="bob")
    assert status == 403


@served(
    tokens={
        "node": Identity("system:node:node-1", ("system:nodes",)),
        "controllers": Identity("system:kube-controller-manager", ("system:controllers",)),
        "network": Identity("system:kube-proxy", ("system:node-proxiers",)),
    }
)
async def test_the_parts_of_the_cluster_have_what_they_need(bench: Bench) -> None:
    node, network = bench.as_token("node"), bench.as_token("network")
    await node.create(NODE, {"metadata": {"name": "node-1"}})
    await node.patch(NODE, "node-1", None, {"status": {"phase": "Running"}}, sub="status")
    lease = {"metadata": {"name": "node-1", "namespace": "kube-node-lease"}}
    await node.create(LEASE, lease, "kube-node-lease")
    for verb, resource in (
        ("watch", "pods"),
        ("delete", "pods"),
        ("get", "secrets"),
        ("create", "events"),
    ):
        assert await _may(node, verb, resource, namespace="default"), (verb, resource)
    assert await _may(node, "create", "serviceaccounts", subresource="token", namespace="default")
    assert not await _may(node, "create", "deployments", group="apps", namespace="default")
    assert not await _may(node, "update", "secrets", namespace="default")
    assert await _may(network, "watch", "endpointslices", group="discovery.k8s.io")
    assert not await _may(network, "get", "secrets", namespace="default")
    controllers = bench.as_token("controllers")
    await controllers.create(SECRET, {"metadata": {"name": "s"}}, "default")
