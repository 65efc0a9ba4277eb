"""A node in the API: its object, its status, and the Lease that says it is alive."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path

from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.kubelet.images import all_images
from pytest_pgo_eks.local.kubelet.shared import NodeLike, Settings
from pytest_pgo_eks.local.kubelet.status import moment
from pytest_pgo_eks.local.objects import LEASE, NODE, Obj

PORT = 10250
VERSION = "v1.34.0+stand-in"
_LEASES = "kube-node-lease"
_LEASE_S = 40
_RENEW_S = 5.0
_RETRY_S = 0.5
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_PODS = "110"


def capacity() -> dict[str, str]:
    """Return what each node claims to have: all of this host, since nothing is reserved."""
    memory_kib = "0"
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            memory_kib = line.split()[1]
    disk = os.statvfs("/")
    return {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{memory_kib}Ki",
        "ephemeral-storage": f"{disk.f_blocks * disk.f_frsize // 1024}Ki",
        "pods": _PODS,
    }


def node_object(node: NodeLike) -> Obj:
    """Return the Node as it is registered."""
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": {
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": architecture,
                "node.kubernetes.io/instance-type": "stand-in",
                "topology.kubernetes.io/region": "local",
                "topology.kubernetes.io/zone": node.zone,
            },
        },
        "spec": {
            "podCIDR": node.pod_cidr,
            "podCIDRs": [node.pod_cidr],
            "providerID": f"stand-in:///{node.zone}/{node.name}",
        },
    }


def node_status(node: NodeLike, amounts: Mapping[str, str], since: Mapping[str, str]) -> Obj:
    """Return the Node's status; ``since`` holds the last transition of each condition."""
    now = moment(time.time())
    healthy = (
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "sufficient PID available"),
        ("Ready", "True", "KubeletReady", "posting ready status"),
    )
    conditions = [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": f"kubelet {'is' if kind == 'Ready' else 'has'} {message}",
            "lastHeartbeatTime": now,
            "lastTransitionTime": since.get(kind, now),
        }
        for kind, status, reason, message in healthy
    ]
    os_release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return {
        "capacity": dict(amounts),
        "allocatable": dict(amounts),
        "conditions": conditions,
        "addresses": [
            {"type": "InternalIP", "address": node.ip},
            {"type": "Hostname", "address": node.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": PORT}},
        "nodeInfo": {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "bootID": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "containerRuntimeVersion": "bubblewrap://stand-in",
            "kernelVersion": platform.release(),
            "kubeProxyVersion": "",
            "kubeletVersion": VERSION,
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": f"{os_release.get('PRETTY_NAME', 'Linux')} (stand-in)",
            "systemUUID": "",
        },
        "images": [{"names": [name], "sizeBytes": 0} for name in all_images()],
    }


class NodeReporter:
    """Registers one node and keeps its status and Lease fresh."""

    def __init__(
        self, client: ApiClient, node: NodeLike, amounts: Mapping[str, str], settings: Settings
    ) -> None:
        self._client = client
        self._node = node
        self._amounts = amounts
        self._settings = settings
        self._uid = ""

    async def register(self) -> None:
        """Make the Node, or take over the one that is there; retries until the API answers."""
        while True:
            try:
                await self._register()
                await self._renew()
            except ApiError:
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def run(self) -> None:
        """Renew the Lease every 10 s and the status every 5 min until cancelled."""
        status_at = time.monotonic() + self._settings.status_period_s
        wait_s = self._settings.lease_period_s
        while True:
            await asyncio.sleep(wait_s)
            wait_s = self._settings.lease_period_s
            try:
                await self._renew()
                if time.monotonic() >= status_at or await self._looks_dead():
                    await self._register()
                    status_at = time.monotonic() + self._settings.status_period_s
            except ApiError:
                # Cut off: the control plane sees the Lease grow old, as it should. Once the
                # network is back the node should not stay NotReady for another period.
                wait_s = _RETRY_S

    async def _looks_dead(self) -> bool:
        """Say whether the control plane has given this node up, so that it reports at once."""
        found = await self._client.find(NODE, self._node.name)
        if found is None:
            return True
        conditions = (found.get("status") or {}).get("conditions") or []
        return not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    async def _register(self) -> None:
        found = await self._client.find(NODE, self._node.name)
        wanted = node_object(self._node)
        if found is None:
            found = await self._client.create(NODE, wanted)
        else:
            labels = {"metadata": {"labels": wanted["metadata"]["labels"]}}
            found = await self._client.patch(NODE, self._node.name, None, labels)
        self._uid = found["metadata"]["uid"]
        conditions = (found.get("status") or {}).get("conditions") or []
        since = {
            c["type"]: c["lastTransitionTime"]
            for c in conditions
            if c["status"] == ("True" if c["type"] == "Ready" else "False")
        }
        status = node_status(self._node, self._amounts, since)
        await self._client.patch(
            NODE, self._node.name, None, {"status": status}, type="strategic", sub="status"
        )

    async def _renew(self) -> None:
        now = f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        patch = {"spec": {"renewTime": now, "holderIdentity": self._node.name}}
        try:
            await self._client.request(
                "PATCH",
                LEASE.path(_LEASES, self._node.name),
                body=patch,
                content_type="application/merge-patch+json",
                timeout_s=_RENEW_S,
            )
        except ApiError as error:
            if error.code != 404:
                raise
            owner = {
                "apiVersion": "v1",
                "kind": "Node",
                "name": self._node.name,
                "uid": self._uid,
            }
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {
                    "name": self._node.name,
                    "namespace": _LEASES,
                    "ownerReferences": [owner],
                },
                "spec": patch["spec"] | {"leaseDurationSeconds": _LEASE_S},
            }
            await self._client.create(LEASE, lease)
