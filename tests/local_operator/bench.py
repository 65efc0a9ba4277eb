"""An API server with the operator's caches on it, and pods that a test makes instead of a kubelet."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from standin.server import client_of, running_api_server

from pytest_pgo_eks.local.apiclient import ApiClient, Executed
from pytest_pgo_eks.local.objects import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    CUSTOM_RESOURCE_DEFINITION,
    ENDPOINTS,
    NAMESPACE,
    POD,
    POSTGRES_CLUSTER,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Kind,
    Obj,
)
from pytest_pgo_eks.local.operator import names
from pytest_pgo_eks.local.operator.context import Tools
from pytest_pgo_eks.local.operator.desired import Cluster
from pytest_pgo_eks.local.operator.manifests import manifests
from pytest_pgo_eks.local.operator.observe import Instance, Observed
from pytest_pgo_eks.local.operator.patroni import dynamic_configuration
from pytest_pgo_eks.local.operator.reconcile import reconcile
from pytest_pgo_eks.local.operator.recorder import Recorder
from pytest_pgo_eks.local.operator.releases import release
from pytest_pgo_eks.local.operator.store import Store

from .hippos import IMAGES, manifest

NS = "postgres-operator"
KEY = (NS, "hippo")
_KINDS = {
    kind.kind: kind
    for kind in (
        NAMESPACE,
        CUSTOM_RESOURCE_DEFINITION,
        SERVICE_ACCOUNT,
        CLUSTER_ROLE,
        CLUSTER_ROLE_BINDING,
    )
}
Answer = Callable[[Sequence[str]], bytes | int | None]


@dataclass
class Bench:
    """The operator under test. ``ran`` is every command it ran in a pod, as (pod, argv)."""

    admin: ApiClient
    client: ApiClient
    tools: Tools
    ran: list[tuple[str, list[str]]] = field(default_factory=list)
    answer: Answer = lambda _argv: None

    async def reconcile(self) -> float | None:
        """Run one pass; the caches have everything the tests wrote before."""
        return await reconcile(self.tools, KEY)

    async def create(self, **spec: Any) -> None:
        obj = manifest()
        obj["spec"] |= spec
        await self.admin.create(POSTGRES_CLUSTER, obj, NS)
        await self.until(lambda: KEY in self.tools.store.clusters.items)

    async def patch(self, patch: Obj) -> None:
        """Change the cluster as its user would."""
        made = await self.admin.patch(POSTGRES_CLUSTER, "hippo", NS, patch)
        await self._seen(POSTGRES_CLUSTER, made)

    @property
    def hippo(self) -> Obj:
        return self.tools.store.clusters.items[KEY]

    @property
    def status(self) -> Obj:
        found: Obj = self.hippo.get("status") or {}
        return found

    def condition(self, kind: str) -> tuple[str, str] | None:
        for condition in self.status.get("conditions") or []:
            if condition["type"] == kind:
                return condition["status"], condition["reason"]
        return None

    @property
    def instances(self) -> list[Instance]:
        store = self.tools.store
        label = {names.DATA: "postgres"}
        return Observed(store.list(STATEFUL_SET, KEY, label), store.list(POD, KEY, label)).instances

    def get(self, kind: Kind, name: str) -> Obj | None:
        return self.tools.store.get(kind, name, NS)

    async def events(self) -> list[tuple[str, str]]:
        from pytest_pgo_eks.local.objects import EVENT

        return [(e["reason"], e["message"]) for e in (await self.admin.list(EVENT, NS)).items]

    async def run_pods(self, *, ready: bool = True) -> None:
        """Play StatefulSet controller, kubelet and Patroni: the first instance leads."""
        for number, instance in enumerate(self.instances):
            if instance.runner is not None and not instance.pods:
                await self.pod(instance, "master" if number == 0 else "replica", ready=ready)
        leader = self.instances[0].pod_name
        for name, notes in (
            ("hippo-ha", {"leader": leader}),
            ("hippo-ha-config", {"initialize": "7711294170323189864", "config": self.wanted()}),
        ):
            metadata = {
                "name": name,
                "namespace": NS,
                "annotations": notes,
                "labels": {names.CLUSTER: "hippo", names.PATRONI: "hippo-ha"},
            }
            body = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata}
            await self._seen(ENDPOINTS, await self.admin.apply(ENDPOINTS, body, field_manager="t"))

    def wanted(self) -> str:
        cluster = Cluster(self.hippo, self.tools.release)
        return json.dumps(dynamic_configuration(cluster))

    async def pod(
        self, instance: Instance, role: str, *, ready: bool = True, **patroni: Any
    ) -> None:
        """Make (or change) the pod of an instance."""
        runner = instance.runner
        assert runner is not None
        account = {"role": "primary" if role == "master" else "replica", "state": "running"}
        template = runner["spec"]["template"]
        metadata = {
            "name": instance.pod_name,
            "labels": template["metadata"]["labels"]
            | {names.ROLE: role, "controller-revision-hash": "new"},
            "annotations": {"status": json.dumps(account | patroni)},
        }
        if instance.pod is None:
            # The kubelet's defaults are of no interest here: one small container will do.
            body = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": {
                    "nodeName": "node-1",
                    "containers": [{"name": "database", "image": "x"}],
                },
            }
            await self.admin.create(POD, body, NS)
        else:
            await self.admin.patch(POD, instance.pod_name, NS, {"metadata": metadata})
        status = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [
                {
                    "name": "database",
                    "image": "x",
                    "imageID": "x",
                    "ready": ready,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-05-17T12:00:00Z"}},
                }
            ],
        }
        made = await self.admin.patch(POD, instance.pod_name, NS, {"status": status}, sub="status")
        await self._seen(POD, made)
        await self.revision(instance.name, "new")

    async def revision(self, name: str, revision: str) -> None:
        """Say that a StatefulSet's newest revision is this."""
        runner = await self.admin.get(STATEFUL_SET, name, NS)
        status = {
            "observedGeneration": runner["metadata"]["generation"],
            "updateRevision": revision,
            "replicas": 1,
        }
        made = await self.admin.patch(STATEFUL_SET, name, NS, {"status": status}, sub="status")
        await self._seen(STATEFUL_SET, made)

    async def remove_pod(self, name: str) -> None:
        await self.admin.delete(POD, name, NS, grace_s=0)
        await self.until(lambda: self.get(POD, name) is None)

    async def end_of_dying(self) -> None:
        """Let the pods go that the operator deleted."""
        for (namespace, name), pod in list(self.tools.store._caches["pods"].items.items()):
            if namespace == NS and pod["metadata"].get("deletionTimestamp"):
                await self.remove_pod(name)

    async def workload_ready(self, kind: Kind, name: str) -> None:
        status = {"replicas": 1, "readyReplicas": 1}
        made = await self.admin.patch(kind, name, NS, {"status": status}, sub="status")
        await self._seen(kind, made)

    async def _seen(self, kind: Kind, obj: Obj) -> None:
        name, version = obj["metadata"]["name"], int(obj["metadata"]["resourceVersion"])

        def there() -> bool:
            if kind is POSTGRES_CLUSTER:
                found = self.tools.store.clusters.items.get((NS, name))
            else:
                found = self.get(kind, name)
            return found is not None and int(found["metadata"]["resourceVersion"]) >= version

        await self.until(there)

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until the caches show something; five seconds are for a busy machine."""
        async with asyncio.timeout(5):
            while not done():  # noqa: ASYNC110 - the cache has no event for this
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def bench(version: str = "6.0") -> AsyncIterator[Bench]:
    """Serve the API with the operator installed and watching; nothing reconciles by itself."""
    async with running_api_server() as (server, admin):
        for obj in manifests(version):
            if obj["kind"] in _KINDS:
                await admin.apply(_KINDS[obj["kind"]], obj, field_manager="test")
        default = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await admin.create(SERVICE_ACCOUNT, default, NS)
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": "pgo"},
            "spec": {},
        }
        token = await admin.create(SERVICE_ACCOUNT, request, NS, "token")
        client = client_of(server, admin, token["status"]["token"])
        store = Store(client, lambda _namespace, _name: None)
        tools = Tools(
            client, store, Recorder(client), IMAGES, release(version), lambda _major: True
        )
        made = Bench(admin, client, tools)

        async def run(_namespace: str, pod: str, command: Sequence[str], **_: object) -> Executed:
            made.ran.append((pod, list(command)))
            answer = made.answer(command)
            if isinstance(answer, int):
                return Executed(answer, b"", b"refused")
            return Executed(0, answer or b"", b"")

        client.exec = run  # type: ignore[method-assign,assignment]
        watching = asyncio.create_task(store.run())
        try:
            await store.synced()
            yield made
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await client.close()


def programs(ran: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Return the programs that were run, in order, with patronictl's verb."""
    return [" ".join(argv[:2]) if argv[0] == "patronictl" else argv[0] for _, argv in ran]


def on_bench(body: Callable[[Bench], Awaitable[None]], version: str = "6.0") -> None:
    async def main() -> None:
        async with bench(version) as made:
            await body(made)

    asyncio.run(main())


async def standing(at: Bench, **spec: Any) -> None:
    """Bring a cluster to where its instances run and everything of the first passes is done."""
    await at.create(**spec)
    await at.reconcile()
    await at.run_pods()
    await at.reconcile()
    at.ran.clear()
