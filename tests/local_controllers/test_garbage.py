"""The garbage collector and the end of namespaces."""

from __future__ import annotations

import asyncio
from typing import Any

from pytest_pgo_eks.local.apiclient import ApiError
from pytest_pgo_eks.local.objects import (
    CONFIG_MAP,
    CUSTOM_RESOURCE_DEFINITION,
    DEPLOYMENT,
    NAMESPACE,
    POD,
    REPLICA_SET,
    SECRET,
    SERVICE_ACCOUNT,
    Kind,
    Obj,
)

from .conftest import Bed, Tell
from .test_deployment import deployment

WIDGET = Kind("example.org/v1", "Widget", "widgets")


def reference(owner: Obj, **more: Any) -> Obj:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        **more,
    }


async def config_map(bed: Bed, name: str, *owners: Obj, **more: Any) -> Obj:
    references = [reference(owner, **more) for owner in owners]
    return await bed.create(
        CONFIG_MAP, {"metadata": {"name": name, "ownerReferences": references or None}}
    )


async def gone(bed: Bed, kind: Kind, name: str) -> None:
    async def look() -> bool:
        return await bed.get(kind, name) is None

    await bed.until(look)


def test_in_the_background_dependents_follow(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        top = await config_map(bed, "top")
        middle = await config_map(bed, "middle", top)
        await config_map(bed, "bottom", middle)
        other = await config_map(bed, "other")
        await config_map(bed, "shared", top, other)
        await bed.client.delete(CONFIG_MAP, "top", "default", propagation="Background")
        await gone(bed, CONFIG_MAP, "bottom")

        async def only_other() -> bool:
            shared = await bed.get(CONFIG_MAP, "shared")
            assert shared is not None, "one owner is left"
            owners = shared["metadata"]["ownerReferences"]
            return [o["name"] for o in owners] == ["other"]

        await bed.until(only_other)

    tell(story)


def test_in_the_foreground_dependents_go_first(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        top = await config_map(bed, "top")
        made = await config_map(bed, "child", top, blockOwnerDeletion=True)
        hold = {"metadata": {"finalizers": ["example.org/hold"]}}
        await bed.patch(CONFIG_MAP, "child", hold)
        await bed.client.delete(CONFIG_MAP, "top", "default", propagation="Foreground")

        async def child_dying() -> bool:
            child = await bed.get(CONFIG_MAP, "child")
            return bool(child and child["metadata"].get("deletionTimestamp"))

        await bed.until(child_dying)
        await asyncio.sleep(0.1)
        assert await bed.get(CONFIG_MAP, "top") is not None
        await bed.patch(CONFIG_MAP, "child", {"metadata": {"finalizers": None}})
        await gone(bed, CONFIG_MAP, "top")
        assert made["metadata"]["name"] == "child"

    tell(story)


def test_orphans_are_let_go(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        top = await config_map(bed, "top")
        await config_map(bed, "child", top)
        await asyncio.sleep(0.1)
        await bed.client.delete(CONFIG_MAP, "top", "default", propagation="Orphan")
        await gone(bed, CONFIG_MAP, "top")
        child = await bed.get(CONFIG_MAP, "child")
        assert child is not None
        assert not child["metadata"].get("ownerReferences")

    tell(story)


def test_an_owner_that_never_was(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        ghost = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ghost", "uid": "g"}}
        await config_map(bed, "child", ghost)
        await gone(bed, CONFIG_MAP, "child")
        real = await bed.create(SECRET, {"metadata": {"name": "real"}})
        await config_map(bed, "safe", real)
        impostor = real | {"metadata": real["metadata"] | {"uid": "another"}}
        await config_map(bed, "cheated", impostor)
        await gone(bed, CONFIG_MAP, "cheated")
        assert await bed.get(CONFIG_MAP, "safe") is not None

    tell(story)


def test_a_deployment_takes_everything_with_it(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        await bed.create(DEPLOYMENT, deployment())

        async def two() -> bool:
            return len(await bed.pods()) == 2

        await bed.until(two)
        await bed.client.delete(DEPLOYMENT, "web", "default", propagation="Background")

        async def all_gone() -> bool:
            for found in await bed.pods():
                if found["metadata"].get("deletionTimestamp"):
                    await bed.kubelet_removes(found["metadata"]["name"])
            return not await bed.pods() and not await bed.every(REPLICA_SET)

        await bed.until(all_gone)

    tell(story)


def test_a_custom_resource_owns_too(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        names = {"kind": "Widget", "plural": "widgets", "singular": "widget"}
        schema = {"openAPIV3Schema": {"type": "object"}}
        version = {"name": "v1", "served": True, "storage": True, "schema": schema}
        spec = {
            "group": "example.org",
            "names": names,
            "scope": "Namespaced",
            "versions": [version],
        }
        definition = {"metadata": {"name": "widgets.example.org"}, "spec": spec}
        await bed.create(CUSTOM_RESOURCE_DEFINITION, definition)
        owner = await bed.until(lambda: _created(bed))
        await config_map(bed, "child", owner)
        await asyncio.sleep(0.5)
        assert await bed.get(CONFIG_MAP, "child") is not None
        await bed.client.delete(WIDGET, "w", "default", propagation="Background")
        await gone(bed, CONFIG_MAP, "child")

    tell(story)


async def _created(bed: Bed) -> Obj | None:
    try:
        return await bed.create(WIDGET, {"metadata": {"name": "w"}})
    except ApiError:
        return None


def test_a_namespace_gets_its_defaults_back(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.create(NAMESPACE, {"metadata": {"name": "apart"}})
        bed.namespace = "apart"
        account = await bed.until(lambda: bed.get(SERVICE_ACCOUNT, "default"))
        root = await bed.until(lambda: bed.get(CONFIG_MAP, "kube-root-ca.crt"))
        assert root["data"] == {"ca.crt": "-- the CA --"}
        await bed.client.delete(SERVICE_ACCOUNT, "default", "apart")

        async def another() -> bool:
            found = await bed.get(SERVICE_ACCOUNT, "default")
            return bool(found and found["metadata"]["uid"] != account["metadata"]["uid"])

        await bed.until(another)

    tell(story)


def test_a_deleted_namespace_empties_itself(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        await bed.create(NAMESPACE, {"metadata": {"name": "apart"}})
        bed.namespace = "apart"
        await bed.until(lambda: bed.get(SERVICE_ACCOUNT, "default"))
        await bed.create(DEPLOYMENT, deployment())
        await config_map(bed, "held")
        hold = {"metadata": {"finalizers": ["example.org/hold"]}}
        await bed.patch(CONFIG_MAP, "held", hold)

        async def two() -> bool:
            return len(await bed.pods()) == 2

        await bed.until(two)
        await bed.client.delete(NAMESPACE, "apart")

        async def waits_for_the_finalizer() -> bool:
            for found in await bed.every(POD):
                if found["metadata"].get("deletionTimestamp"):
                    await bed.kubelet_removes(found["metadata"]["name"])
            namespace = await bed.get(NAMESPACE, "apart")
            assert namespace is not None
            conditions = (namespace.get("status") or {}).get("conditions") or []
            return any("example.org/hold" in c.get("message", "") for c in conditions)

        await bed.until(waits_for_the_finalizer)
        await gone(bed, DEPLOYMENT, "web")
        await bed.patch(CONFIG_MAP, "held", {"metadata": {"finalizers": None}})
        await gone(bed, NAMESPACE, "apart")
        assert not await bed.every(CONFIG_MAP)

    tell(story)
