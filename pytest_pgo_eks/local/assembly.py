"""What a cluster is made of, put together inside the namespaces.

Order matters: the network's bridge first, because the API server listens on it; then the API; then
whoever needs the API.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import socket
from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks.local import pki
from pytest_pgo_eks.local.apiclient import ApiClient, ApiError, Cache
from pytest_pgo_eks.local.apiserver import ApiServer, Identity
from pytest_pgo_eks.local.controllers import ControllerConfig, run_controllers
from pytest_pgo_eks.local.faults_api import PREFIX, FaultsApi
from pytest_pgo_eks.local.kubelet import Kubelet
from pytest_pgo_eks.local.network import (
    API_PORT,
    API_SERVICE_IP,
    CORE_IP,
    DNS_SERVICE_IP,
    Network,
    three_zones,
)
from pytest_pgo_eks.local.network.faults import Faults
from pytest_pgo_eks.local.objects import DEPLOYMENT, NODE, POD, Kind, Obj
from pytest_pgo_eks.local.operator.manifests import NAMESPACE, manifests
from pytest_pgo_eks.local.state import write
from pytest_pgo_eks.local.supervisor import Broken, Cluster

_READY_S = 60.0
DEFAULT = "6.0"
STORAGE_CLASS = "standin-local"
CAPABILITIES = frozenset(
    {"zones", "network-policy", "node-drain", "volume-expansion", "limited-volumes"}
)


async def start(cluster: Cluster, parts: contextlib.AsyncExitStack) -> None:
    """Start everything; what is to be closed at the end goes on ``parts``.

    :raises Broken: a part did not come up.
    """
    order, state = cluster.order, cluster.state
    nodes = three_zones()
    network = Network()
    async with cluster.phase("network"):
        parts.push_async_callback(network.stop)
        await network.plumb(nodes)
    certificates = pki.issue(
        state.pki,
        api_names=[
            "127.0.0.1",
            "localhost",
            CORE_IP,
            API_SERVICE_IP,
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ],
        kubelet_names=[*(n.ip for n in nodes), *(n.name for n in nodes)],
    )
    tokens = {name: secrets.token_urlsafe(32) for name in ("admin", "controllers", "network")}
    tokens |= {node.name: secrets.token_urlsafe(32) for node in nodes}
    kubelet_token = secrets.token_urlsafe(32)
    identities = {
        tokens["controllers"]: Identity("system:kube-controller-manager", ("system:controllers",)),
        tokens["network"]: Identity("system:kube-proxy", ("system:node-proxiers",)),
    } | {
        tokens[node.name]: Identity(f"system:node:{node.name}", ("system:nodes",)) for node in nodes
    }
    inside = socket.create_server((CORE_IP, API_PORT))
    inside.setblocking(False)
    async with cluster.phase("API server"):
        server = ApiServer(
            state=state.path / "apiserver",
            admin_token=tokens["admin"],
            tokens=identities,
            kubelet_token=kubelet_token,
            kubelet_ca=certificates.ca_file,
        )
        await server.start([cluster.door, inside], certificates.api_server.server_context())
        parts.push_async_callback(server.stop)
    host, port = cluster.door.getsockname()
    _write_kubeconfig(state.kubeconfig, f"https://{host}:{port}", certificates, tokens["admin"])

    def client(who: str, **options: Any) -> ApiClient:
        made = ApiClient(
            f"https://{CORE_IP}:{API_PORT}",
            ca_file=certificates.ca_file,
            token=tokens[who],
            user_agent=f"pytest-pgo-eks-local/{who}",
            **options,
        )
        parts.push_async_callback(made.close)
        return made

    admin = client("admin")
    config = ControllerConfig(
        storage_root=state.path / "volumes", cluster_ca=certificates.ca_text()
    )
    config.storage_root.mkdir()
    cluster.spawn("controllers", run_controllers(client("controllers"), config=config))
    kubelet = Kubelet(
        nodes=nodes,
        client_factory=lambda node: client(node, socket_factory=network.socket_factory(node)),
        network=network,
        state=state.path / "kubelet",
        tls=certificates.kubelet.server_context(),
        token=kubelet_token,
    )
    version = order.operator_version or DEFAULT if order.operator else None
    async with cluster.phase("nodes, Services, policies and names"):
        parts.push_async_callback(kubelet.stop)
        # The operator's image is "pulled" and started while the rest comes up.
        await asyncio.gather(
            apply(admin, [*base(), *(manifests(version) if version else [])]),
            network.start(client("network"), nodes),
            kubelet.start(),
        )
        await until_ready(admin, NODE, len(nodes), node_ready)
    faults = Faults(network, lose=kubelet.lose, restore=kubelet.restore)
    await faults.start()
    server.extensions[PREFIX] = FaultsApi(faults).handle
    if version:
        async with cluster.phase("operator"):
            await until_ready(admin, DEPLOYMENT, 1, deployment_available, NAMESPACE)
    answer = {
        "name": order.name,
        "state_dir": str(state.path),
        "kubeconfig": str(state.kubeconfig),
        "kubernetes_version": (await admin.request("GET", "/version"))["gitVersion"],
        "capabilities": sorted(CAPABILITIES | faults.capabilities),
        "operator_version": f"{version}-stand-in" if version else None,
    }
    cluster.ready(answer)


def base() -> list[Obj]:
    """What a distribution adds to a bare control plane."""
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": ControllerConfig.provisioner,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"},
            },
            "spec": {
                "clusterIP": DNS_SERVICE_IP,
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                ],
            },
        },
    ]


async def apply(client: ApiClient, objects: list[Obj]) -> None:
    for obj in objects:
        await client.apply(_kind(obj), obj, field_manager="stand-in")


def _kind(obj: Obj) -> Kind:
    name: str = obj["kind"]
    plural = name.lower() + ("es" if name.endswith("s") else "s")
    cluster_wide = {"Namespace", "StorageClass", "ClusterRole", "ClusterRoleBinding"}
    namespaced = name not in cluster_wide | {"CustomResourceDefinition"}
    return Kind(obj["apiVersion"], name, plural, namespaced)


def node_ready(node: Obj) -> bool:
    return _condition(node, "Ready")


def deployment_available(deployment: Obj) -> bool:
    return _condition(deployment, "Available")


def _condition(obj: Obj, kind: str) -> bool:
    conditions = (obj.get("status") or {}).get("conditions") or []
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)


async def until_ready(
    client: ApiClient, kind: Kind, count: int, accept: Any, namespace: str | None = None
) -> None:
    """Watch until ``count`` objects are accepted.

    :raises Broken: they were not within a minute.
    """
    done = asyncio.Event()

    def look(_type: str = "", _obj: Obj | None = None) -> None:
        if sum(accept(item) for item in cache.items.values()) >= count:
            done.set()

    cache = Cache(client, kind, namespace, changed=look)
    task = asyncio.create_task(cache.run())
    try:
        async with asyncio.timeout(_READY_S):
            await done.wait()
    except TimeoutError:
        why = await _why_not(client, namespace)
        what = f"{kind.plural} not ready after {_READY_S:.0f} s"
        raise Broken("; ".join([what, *why])) from None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _why_not(client: ApiClient, namespace: str | None) -> list[str]:
    """Return what the pods of a namespace wait for, with the end of a failed one's log."""
    found: list[str] = []
    for pod in (await client.list(POD, namespace)).items if namespace else []:
        name, status = pod["metadata"]["name"], pod.get("status") or {}
        for one in status.get("containerStatuses") or []:
            for state, details in one["state"].items():
                if state != "running":
                    reason = f"{details.get('reason')} {details.get('message') or ''}".strip()
                    found.append(f"{name} {one['name']} is {state}: {reason}")
            with contextlib.suppress(ApiError):
                previous = one["restartCount"] > 0 and "running" not in one["state"]
                log = await client.logs(
                    namespace or "", name, container=one["name"], previous=previous, tail=5
                )
                found.append(f"its log ends: {log.strip()}")
        if not status.get("containerStatuses"):
            conditions = status.get("conditions") or []
            found += [f"{name}: {c['message']}" for c in conditions if c.get("message")]
    return found


def _write_kubeconfig(path: Path, url: str, certificates: pki.Pki, token: str) -> None:
    name = "stand-in"
    authority = base64.b64encode(certificates.ca_file.read_bytes()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": url, "certificate-authority-data": authority}}
        ],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "admin"}}],
        "current-context": name,
    }
    write(path, yaml.safe_dump(content, sort_keys=False))
