"""Claims and volumes: binding, expansion, protection, reclaim."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pgo_eks.local.controllers.quantities import int_or_percent, quantity
from pytest_pgo_eks.local.controllers.volume_rules import best_volume
from pytest_pgo_eks.local.controllers.volumes import remove_volume
from pytest_pgo_eks.local.objects import (
    CLAIM,
    LIMITED_CLASS,
    PERSISTENT_VOLUME,
    POD,
    STORAGE_CLASS,
    Obj,
)

from .conftest import Bed, Tell


def claim(name: str = "data", size: str = "1Gi", **spec: object) -> Obj:
    return {
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            **spec,
        },
    }


def user_of(name: str, claim_name: str = "data") -> Obj:
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": claim_name}}
    containers = [{"name": "main", "image": "x"}]
    return {"metadata": {"name": name}, "spec": {"containers": containers, "volumes": [volume]}}


def volume(name: str, size: str = "1Gi", **spec: object) -> Obj:
    return {
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "manual",
            **spec,
        },
    }


@pytest.mark.parametrize(
    ("text", "number"), [("1Gi", 2**30), ("500m", 0.5), ("2", 2), ("1.5k", 1500), ("1e3", 1000)]
)
def test_quantities(text: str, number: float) -> None:
    assert float(quantity(text)) == number


def test_what_is_no_quantity() -> None:
    with pytest.raises(ValueError, match="1Xi"):
        quantity("1Xi")


def test_percentages() -> None:
    assert int_or_percent("25%", 3, round_up=True) == 1
    assert int_or_percent("25%", 3, round_up=False) == 0
    assert int_or_percent(2, 3, round_up=True) == 2


def test_the_smallest_sufficient_volume_is_taken() -> None:
    wanted = claim(size="2Gi", storageClassName="manual")
    wanted["metadata"] |= {"namespace": "default", "uid": "c"}
    taken = volume("taken", "2Gi", claimRef={"namespace": "x", "name": "y", "uid": "z"})
    found = [volume("small"), volume("big", "9Gi"), volume("right", "3Gi"), taken]
    best = best_volume(wanted, found, None)
    assert best is not None
    assert best["metadata"]["name"] == "right"
    reserved = volume("reserved", "9Gi", claimRef={"namespace": "default", "name": "data"})
    assert best_volume(wanted, [*found, reserved], None) is reserved
    assert (
        best_volume(claim(storageClassName="other") | {"metadata": wanted["metadata"]}, found, None)
        is None
    )


def test_nothing_outside_the_storage_root_is_removed(tmp_path: Path) -> None:
    root, precious = tmp_path / "root", tmp_path / "precious"
    root.mkdir()
    precious.mkdir()
    (root / "link").symlink_to(precious)
    for path in (precious, root / "link", root, root / ".." / "precious", root / "a" / "b"):
        remove_volume(path, root)
    assert precious.is_dir()
    locked = root / "pvc-1" / "deep"
    locked.mkdir(parents=True)
    (locked / "file").write_text("x")
    locked.chmod(0)
    (root / "pvc-1").chmod(0o500)
    try:
        remove_volume(root / "pvc-1", root)
        assert not (root / "pvc-1").exists()
    finally:
        if locked.exists():
            locked.chmod(0o700)


def exists(path: Path) -> bool:
    return path.exists()


def test_volumes_of_the_limited_class_are_there_and_nobodys_default(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        made = await bed.until(lambda: bed.get(STORAGE_CLASS, LIMITED_CLASS))
        assert not made["allowVolumeExpansion"], "a file system in memory does not grow"
        await bed.create(CLAIM, claim(storageClassName=LIMITED_CLASS))
        await bed.create(POD, user_of("user"))
        await bed.bound("user")
        found = await bed.get(CLAIM, "data")
        assert found is not None
        volume = await bed.get(PERSISTENT_VOLUME, found["spec"]["volumeName"])
        assert volume is not None
        assert volume["spec"]["storageClassName"] == LIMITED_CLASS
        await bed.create(CLAIM, claim("plain"))
        await bed.until(lambda: bed.events("WaitForFirstConsumer"))
        plain = await bed.get(CLAIM, "plain")
        assert plain is not None
        assert plain["spec"]["storageClassName"] == "standin-local"

    tell(story)


def test_life_of_a_claim(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        await bed.until(lambda: bed.get(STORAGE_CLASS, "standin-local"))
        await bed.create(CLAIM, claim())
        said = await bed.until(lambda: bed.events("WaitForFirstConsumer"))
        assert said == ["waiting for first consumer to be created before binding"]
        found = await bed.get(CLAIM, "data")
        assert found is not None
        assert found["spec"]["storageClassName"] == "standin-local"
        await bed.create(POD, user_of("user"))
        await bed.bound("user")
        found = await bed.get(CLAIM, "data")
        assert found is not None
        name = found["spec"]["volumeName"]
        assert found["status"]["capacity"] == {"storage": "1Gi"}
        made = await bed.get(PERSISTENT_VOLUME, name)
        assert made is not None
        directory = Path(made["spec"]["hostPath"]["path"])
        assert directory.parent == bed.root

        await bed.patch(CLAIM, "data", {"spec": {"resources": {"requests": {"storage": "2Gi"}}}})

        async def grown() -> bool:
            found = await bed.get(CLAIM, "data")
            return bool(found and found["status"]["capacity"]["storage"] == "2Gi")

        await bed.until(grown)
        await bed.client.delete(CLAIM, "data", "default")
        found = await bed.get(CLAIM, "data")
        assert found is not None, "a claim in use is protected"
        assert found["metadata"]["deletionTimestamp"]
        await bed.client.delete(POD, "user", "default", grace_s=0)

        async def all_gone() -> bool:
            return (
                await bed.get(CLAIM, "data") is None
                and await bed.get(PERSISTENT_VOLUME, name) is None
                and not exists(directory)
            )

        await bed.until(all_gone)

    tell(story)


def test_a_retained_volume_is_released_and_kept(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        made = volume("pv", hostPath={"path": "/nowhere"}, persistentVolumeReclaimPolicy="Retain")
        await bed.create(PERSISTENT_VOLUME, made)
        await bed.create(CLAIM, claim(storageClassName="manual"))

        async def phase(kind: object, name: str, wanted: str) -> bool:
            which = CLAIM if kind is CLAIM else PERSISTENT_VOLUME
            found = await bed.get(which, name)
            return bool(found and (found.get("status") or {}).get("phase") == wanted)

        await bed.until(lambda: phase(CLAIM, "data", "Bound"))
        await bed.until(lambda: phase(PERSISTENT_VOLUME, "pv", "Bound"))
        await bed.client.delete(CLAIM, "data", "default")
        await bed.until(lambda: phase(PERSISTENT_VOLUME, "pv", "Released"))

    tell(story)


def test_a_node_that_is_gone_is_not_waited_for(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes("node-1")
        await bed.until(lambda: bed.get(STORAGE_CLASS, "standin-local"))
        made = claim()
        made["metadata"]["annotations"] = {"volume.kubernetes.io/selected-node": "node-9"}
        await bed.create(CLAIM, made)
        await bed.create(POD, user_of("user"))
        assert (await bed.bound("user"))["spec"]["nodeName"] == "node-1"

    tell(story)


def test_a_claim_without_its_volume_is_lost(tell: Tell) -> None:
    async def story(bed: Bed) -> None:
        await bed.nodes()
        await bed.create(PERSISTENT_VOLUME, volume("pv", hostPath={"path": "/nowhere"}))
        await bed.create(CLAIM, claim(storageClassName="manual"))

        async def phase(wanted: str) -> bool:
            found = await bed.get(CLAIM, "data")
            return bool(found and (found.get("status") or {}).get("phase") == wanted)

        async def protected() -> bool:
            found = await bed.get(PERSISTENT_VOLUME, "pv")
            return bool(found and found["metadata"].get("finalizers"))

        await bed.until(lambda: phase("Bound"))
        await bed.until(protected)
        await bed.client.delete(PERSISTENT_VOLUME, "pv")
        await bed.patch(PERSISTENT_VOLUME, "pv", {"metadata": {"finalizers": None}})
        await bed.until(lambda: phase("Lost"))
        assert await bed.until(lambda: bed.events("ClaimLost"))

    tell(story)
