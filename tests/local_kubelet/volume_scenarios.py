"""Volumes: made before a pod starts, and kept current while it runs."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from kubelet_bed import SPACE, Bed, condition, phase

from pytest_pgo_eks.local.controllers.volumes import remove_volume
from pytest_pgo_eks.local.objects import (
    CLAIM,
    CONFIG_MAP,
    LIMITED_CLASS,
    PERSISTENT_VOLUME,
    POD,
    SECRET,
    Obj,
)

SLEEP = ["sh", "-c", "exec sleep 1000"]


def mounted(*mounts: Obj, **more: Any) -> Obj:
    return {"command": SLEEP, "volumeMounts": list(mounts), **more}


async def secret(bed: Bed, name: str, **data: str) -> None:
    metadata = {"name": name, "namespace": SPACE}
    await bed.api.create(SECRET, {"metadata": metadata, "stringData": data})


async def late_source(bed: Bed) -> float:
    """A pod waits in ContainerCreating, says why, and starts as soon as the Secret is there."""
    volumes = [{"name": "v", "secret": {"secretName": "late"}}]
    await bed.pod("late", mounted({"name": "v", "mountPath": "/v"}), volumes=volumes)
    events = await bed.until_event("late", "FailedMount")
    said = next(e["message"] for e in events if e["reason"] == "FailedMount")
    assert said == 'MountVolume.SetUp failed for volume "v" : secret "late" not found', said
    pod = await bed.until("late", lambda p: p["status"].get("containerStatuses"))
    waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]
    assert waiting["reason"] == "ContainerCreating"
    assert phase(pod) == "Pending"
    assert condition(pod, "PodReadyToStartContainers") == "False"
    began = time.monotonic()
    await secret(bed, "late", key="here")
    await bed.running("late")
    took = time.monotonic() - began
    assert await bed.shell("late", "cat /v/key") == "here"
    return took


async def projected(bed: Bed) -> float:
    """Sources merge, modes and paths are as asked, and a change arrives whole and soon."""
    await secret(bed, "certs", **{"tls.key": "k1", "tls.crt": "c1"})
    await bed.config("conf", {"a": "1", "b": "2"})
    items = [
        {"key": "tls.key", "path": "inner/key", "mode": 0o600},
        {"key": "tls.crt", "path": "crt"},
    ]
    sources = [
        {"secret": {"name": "certs", "items": items}},
        {"configMap": {"name": "conf"}},
        {"secret": {"name": "nowhere", "optional": True}},
        {
            "downwardAPI": {
                "items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {
                        "path": "cpu",
                        "resourceFieldRef": {
                            "containerName": "c0",
                            "resource": "limits.cpu",
                            "divisor": "1m",
                        },
                    },
                ]
            }
        },
    ]
    volumes = [{"name": "v", "projected": {"sources": sources}}]
    one = mounted(
        {"name": "v", "mountPath": "/v", "readOnly": True},
        {"name": "v", "mountPath": "/single", "subPath": "a"},
        resources={"limits": {"cpu": "250m"}},
    )
    await bed.pod("projected", one, volumes=volumes)
    await bed.running("projected")
    look = "cd /v; cat inner/key crt a b labels cpu /single; stat -Lc %a inner/key crt; readlink a; touch x"
    done = await bed.exec("projected", "sh", "-c", look)
    assert done.stdout.decode() == 'k1c112app="projected"2501600\n644\n..data/a\n', done
    assert b"Read-only" in done.stderr
    # A watcher in the pod must never see the new key beside the old certificate.
    old = (await bed.shell("projected", "readlink /v/..data")).strip()
    watch = f"while test $(readlink /v/..data) = {old}; do :; done; cat /v/inner/key /v/crt"
    watching = asyncio.create_task(bed.shell("projected", watch))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    data = {"stringData": {"tls.key": "k2", "tls.crt": "c2"}}
    await bed.api.patch(SECRET, "certs", SPACE, data)
    assert await watching == "k2c2"
    took = time.monotonic() - began
    await bed.api.patch(CONFIG_MAP, "conf", SPACE, {"data": {"a": "9", "b": None, "c": "3"}})
    await bed.api.patch(POD, "projected", SPACE, {"metadata": {"labels": {"role": "x"}}})
    await until_shell(
        bed,
        "projected",
        "cd /v; ls; cat a c; cat labels",
        'a\nc\ncpu\ncrt\ninner\nlabels\n93app="projected"\nrole="x"',
    )
    # A subPath stays as it was, as on Kubernetes.
    assert await bed.shell("projected", "cat /single") == "1"
    return took


async def until_shell(bed: Bed, pod: str, script: str, wanted: str) -> None:
    end = time.monotonic() + 20
    found = ""
    while time.monotonic() < end:
        done = await bed.exec(pod, "sh", "-c", script)
        found = done.stdout.decode()
        if found == wanted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{found!r} is not {wanted!r}")


async def account_token(bed: Bed) -> None:
    """The pod's token admits it to the API at the address of the kubernetes Service."""
    await bed.pod("account", {}, automountServiceAccountToken=True)
    await bed.running("account")
    where = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert await bed.shell("account", f"cat {where}/namespace") == SPACE
    ask = (
        f'curl -s --max-time 5 --cacert {where}/ca.crt -H "Authorization: Bearer $(cat {where}/token)" '
        '-X POST -H \'Content-Type: application/json\' -d \'{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}\' '
        "https://kubernetes.default.svc/apis/authentication.k8s.io/v1/selfsubjectreviews"
    )
    answer = await bed.shell("account", ask)
    assert "system:serviceaccount:default:default" in answer, answer


async def claim(bed: Bed) -> None:
    """A claim's volume keeps its files from pod to pod; another node has to wait for it."""
    where = bed.root / "volume"
    await bed.api.create(
        PERSISTENT_VOLUME,
        {
            "metadata": {"name": "pv"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": str(where)},
                "claimRef": {"name": "data", "namespace": SPACE},
            },
        },
    )
    body = {
        "metadata": {"name": "data", "namespace": SPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "volumeName": "pv",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    await bed.api.create(CLAIM, body)
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    mount = {"name": "v", "mountPath": "/pgdata"}
    await bed.pod("first", mounted(mount), volumes=volumes)
    await bed.until_event("first", "FailedMount")
    status = {
        "status": {
            "phase": "Bound",
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
        }
    }
    await bed.api.patch(CLAIM, "data", SPACE, status, sub="status")
    await bed.running("first")
    await bed.shell("first", "echo kept > /pgdata/file")
    await bed.pod("second", mounted(mount), node=2, volumes=volumes)
    events = await bed.until_event("second", "FailedAttachVolume")
    assert any("Multi-Attach" in e["message"] for e in events)
    await bed.api.delete(POD, "first", SPACE, grace_s=0)
    await bed.running("second", 3)
    assert await bed.shell("second", "cat /pgdata/file") == "kept\n"


async def limited_claim(bed: Bed) -> None:
    """A volume of the limited class is a file system of its own size, and outlives every pod."""
    where = bed.root / "limited"
    await bed.api.create(
        PERSISTENT_VOLUME,
        {
            "metadata": {"name": "small-pv"},
            "spec": {
                "capacity": {"storage": "16Mi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": str(where)},
                "storageClassName": LIMITED_CLASS,
            },
        },
    )
    resources = {"requests": {"storage": "16Mi"}}
    body = {
        "metadata": {"name": "small", "namespace": SPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "volumeName": "small-pv",
            "resources": resources,
        },
    }
    await bed.api.create(CLAIM, body)
    bound = {"status": {"phase": "Bound", "capacity": {"storage": "16Mi"}}}
    await bed.api.patch(CLAIM, "small", SPACE, bound, sub="status")
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "small"}}]
    pod = mounted({"name": "v", "mountPath": "/pgdata"})
    await bed.pod("filling", pod, volumes=volumes)
    await bed.running("filling")
    size = await bed.shell("filling", "df --output=size -k /pgdata | tail -1")
    assert size.strip() == str(16 * 1024), size
    full = "dd if=/dev/zero of=/pgdata/filler bs=1M 2>&1 | grep -c 'No space left on device'"
    assert await bed.shell("filling", full) == "1\n"
    await bed.shell("filling", "rm /pgdata/filler; echo kept > /pgdata/file")
    await bed.api.delete(POD, "filling", SPACE, grace_s=0)
    await bed.pod("after", pod, volumes=volumes)
    await bed.running("after")
    assert await bed.shell("after", "cat /pgdata/file") == "kept\n"
    # As the volume controller takes it away: what is mounted goes first.
    await bed.api.delete(POD, "after", SPACE, grace_s=0)
    await asyncio.to_thread(remove_volume, where, bed.root)
    assert not where.exists()


async def empty_dirs(bed: Bed) -> None:
    """Containers share an emptyDir; one in memory is a file system of its own size."""
    volumes = [
        {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
    ]
    mounts = ({"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"})
    context = {"runAsUser": 26, "readOnlyRootFilesystem": True}
    await bed.pod(
        "empty", mounted(*mounts, securityContext=context), mounted(*mounts), volumes=volumes
    )
    await bed.running("empty")
    await bed.shell("empty", "echo a > /tmp/a; echo b > /dev/shm/b")
    assert await bed.shell("empty", "cat /tmp/a /dev/shm/b", container="c1") == "a\nb\n"
    size = await bed.shell("empty", "df --output=size -k /dev/shm | tail -1")
    assert size.strip() == "8192", size
    pod = bed.worker("empty")
    root = pod.directory
    await bed.api.delete(POD, "empty", SPACE, grace_s=0)
    await asyncio.wait_for(pod.gone.wait(), 3)
    assert not root.exists()


async def host_path(bed: Bed) -> None:
    where = bed.root / "from-host"
    volumes = [{"name": "h", "hostPath": {"path": str(where), "type": "DirectoryOrCreate"}}]
    await bed.pod(
        "host", mounted({"name": "h", "mountPath": "/h", "readOnly": True}), volumes=volumes
    )
    await bed.running("host")
    (where / "x").write_text(json.dumps({"a": 1}))
    assert await bed.shell("host", "cat /h/x") == '{"a": 1}'
    refused = await bed.exec("host", "touch", "/h/y")
    assert refused.exit_status == 1
