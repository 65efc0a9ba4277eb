"""Nonsense is refused or stored, and never an internal error."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from typing import Any

from local_apiserver.api_bench import (
    Bench,
    config_map,
    definition,
    deployment,
    pod,
    served,
    service,
)
from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.apiserver.call import Call
from pytest_pgo_eks.local.apiserver.problems import Problem
from pytest_pgo_eks.local.objects import (
    CLAIM,
    CLUSTER_ROLE_BINDING,
    CONFIG_MAP,
    CRON_JOB,
    CUSTOM_RESOURCE_DEFINITION,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    ENDPOINT_SLICE,
    ENDPOINTS,
    EVENT,
    JOB,
    LEASE,
    NAMESPACE,
    NETWORK_POLICY,
    NODE,
    PERSISTENT_VOLUME,
    POD,
    REPLICA_SET,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    STORAGE_CLASS,
    Kind,
    Obj,
)

_ODD: list[Any] = [None, "", "x", 0, -1, 1.5, True, [], {}, [None], [{}], {"a": None}, "1Gi", ["x"]]
_WORDS = [
    "spec",
    "status",
    "metadata",
    "name",
    "labels",
    "template",
    "containers",
    "selector",
    "ports",
    "port",
    "type",
    "conditions",
    "rules",
    "subjects",
    "roleRef",
    "finalizers",
    "ownerReferences",
    "replicas",
    "env",
    "resources",
    "limits",
    "volumes",
    "data",
    "matchLabels",
    "schedule",
    "jobTemplate",
    "subsets",
    "addresses",
    "endpoints",
    "accessModes",
    "versions",
    "names",
    "schema",
    "annotations",
    "managedFields",
    "generateName",
    "namespace",
    "apiVersion",
    "kind",
    "clusterIP",
    "hostPath",
    "capacity",
]


def _broken(value: Any, chance: random.Random) -> Any:
    """Return the value with one or two places made odd."""
    found = json.loads(json.dumps(value))
    for _ in range(chance.randint(1, 2)):
        inner = found
        while isinstance(inner, dict | list) and inner and chance.random() < 0.8:
            at: Any = (
                chance.choice(list(inner))
                if isinstance(inner, dict)
                else chance.randrange(len(inner))
            )
            if not isinstance(inner[at], dict | list) or not inner[at]:
                break
            inner = inner[at]
        odd = json.loads(json.dumps(chance.choice(_ODD)))
        if isinstance(inner, dict):
            inner[chance.choice([*inner, *_WORDS])] = odd
        elif isinstance(inner, list):
            inner.append(odd)
    return found


def _named(**more: Any) -> Obj:
    return {"metadata": {"name": "x", "labels": {"a": "b"}}, **more}


_TEMPLATE: Obj = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}
_RBAC_REF = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
_CLAIM_SPEC = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
_VOLUME_SPEC = {
    "capacity": {"storage": "1Gi"},
    "hostPath": {"path": "/x"},
    "accessModes": ["ReadWriteOnce"],
}
_SEEDS: list[tuple[Kind, Obj]] = [
    (POD, pod("x")),
    (CONFIG_MAP, config_map("x", a="1")),
    (DEPLOYMENT, deployment("x")),
    (REPLICA_SET, _named(spec=deployment("x")["spec"])),
    (STATEFUL_SET, _named(spec=deployment("x")["spec"] | {"serviceName": "x"})),
    (SERVICE, service("x")),
    (JOB, _named(spec={"template": _TEMPLATE})),
    (
        CRON_JOB,
        _named(spec={"schedule": "@daily", "jobTemplate": {"spec": {"template": _TEMPLATE}}}),
    ),
    (CLAIM, _named(spec=_CLAIM_SPEC)),
    (PERSISTENT_VOLUME, _named(spec=_VOLUME_SPEC)),
    (SECRET, _named(data={"a": "eA=="}, stringData={"b": "c"})),
    (NODE, _named(status={"addresses": [{"type": "InternalIP", "address": "1.2.3.4"}]})),
    (NAMESPACE, _named()),
    (ENDPOINTS, _named(subsets=[{"addresses": [{"ip": "1.2.3.4"}], "ports": [{"port": 1}]}])),
    (ENDPOINT_SLICE, _named(addressType="IPv4", endpoints=[{"addresses": ["1.2.3.4"]}])),
    (LEASE, _named(spec={"holderIdentity": "x", "renewTime": "2026-01-01T00:00:00.000000Z"})),
    (EVENT, _named(involvedObject={"kind": "Pod", "name": "x"}, reason="X", source={"host": "y"})),
    (DISRUPTION_BUDGET, _named(spec={"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}})),
    (NETWORK_POLICY, _named(spec={"podSelector": {}, "ingress": [{"ports": [{"port": 1}]}]})),
    (STORAGE_CLASS, _named(provisioner="x")),
    (ROLE, _named(rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])),
    (ROLE_BINDING, _named(roleRef=_RBAC_REF, subjects=[{"kind": "User", "name": "x"}])),
    (CLUSTER_ROLE_BINDING, _named(roleRef=_RBAC_REF, subjects=[{"kind": "Group", "name": "x"}])),
    (CUSTOM_RESOURCE_DEFINITION, definition({"type": "object"})),
]
_CONTENT = ("application/merge-patch+json", "application/strategic-merge-patch+json")


@served(only_ours="a real server answers some of these with an internal error")
async def test_no_request_is_an_internal_error(bench: Bench) -> None:
    admin, failures = bench.admin, []
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"} | admin._headers()

    async def send(method: str, path: str, seed: Obj, body: Any, **more: Any) -> None:
        try:
            await admin.request(method, path, body=body, **more)
        except ApiError as error:
            known = "resourceVersion should not be set" in error.message
            if error.code in {0, 500} and not known:
                failures.append((method, path, body, error.message))

    for kind, seed in _SEEDS:
        chance = random.Random(kind.kind)
        namespace = "default" if kind.namespaced else None
        path, one = kind.path(namespace), kind.path(namespace, "x")
        for _ in range(8):
            await send("POST", path, seed, _broken(seed, chance))
        await send("POST", path, seed, seed)
        for _ in range(5):
            for content_type in _CONTENT:
                patch = _broken(seed, chance)
                await send("PATCH", one, seed, patch, content_type=content_type)
            query = {"fieldManager": "nonsense", "force": "true"}
            apply = {"content_type": "application/apply-patch+yaml", "query": query}
            base = {"apiVersion": kind.api_version, "kind": kind.kind, **seed}
            await send("PATCH", one, seed, _broken(base, chance), **apply)
            await send("PUT", one, seed, _broken(base, chance))
            status = {"status": chance.choice([*_ODD, {"conditions": chance.choice(_ODD)}])}
            await send("PATCH", f"{one}/status", seed, status, content_type=_CONTENT[0])
        async with admin._open().get(admin.url + path, headers=table) as answer:
            if answer.status >= 500:
                failures.append(("GET", path, None, await answer.text()))
        await asyncio.sleep(0)
    assert not failures, failures[:3]


@served()
async def test_no_patch_changes_a_stored_object_in_place(bench: Bench) -> None:
    """Versions share what a patch leaves alone, so one that wrote there would rewrite the past."""
    server, done = bench.server, 0
    for kind, seed in _SEEDS:
        group, _, version = kind.api_version.rpartition("/")
        resource = server.registry.find(group, version, kind.plural)
        assert resource is not None
        namespace = "default" if kind.namespaced else ""
        made = json.loads(json.dumps(seed))
        server.writing.create(Call(resource, namespace, who=server._admin, agent="test"), made)
        chance, name = random.Random(kind.plural), seed["metadata"]["name"]
        for _ in range(60):
            stored = server.store.collection(resource.storage).get(namespace, name)
            assert stored is not None
            before = json.dumps(stored.obj)
            patch = _broken(seed, chance)
            content_type = chance.choice([*_CONTENT, "application/apply-patch+yaml"])
            if isinstance(patch, dict) and "apply" in content_type:
                patch = {"apiVersion": kind.api_version, "kind": kind.kind, **patch}
            query = {"fieldManager": chance.choice("ab"), "force": "true"}
            door = chance.choice(["", "status"] if resource.has_status else [""])
            call = Call(resource, namespace, name, door, query, server._admin, "test")
            with contextlib.suppress(Problem):
                server.writing.patch(call, content_type, patch)
                done += 1
            assert json.dumps(stored.obj) == before, (kind.kind, content_type, patch)
    assert done > 500
