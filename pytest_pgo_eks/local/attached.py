"""Nodes, network and operator for an API server and controllers that are not ours.

This keeps the stand-in's own API server honest: kubelet, network and operator are ordinary clients,
and whatever they need from one server they must need from the other. The server must give Services
addresses in 10.96.0.0/16 (``--service-cluster-ip-range``). Exec, logs and port-forward of its pods
are asked of the kubelets, whose addresses lie inside: the server finds them through its egress
selector, at the socket that ``--egress`` names, and shows them a client certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import ssl
from pathlib import Path
from typing import Any

from pytest_pgo_eks.local import pki
from pytest_pgo_eks.local.apiclient import ApiClient, ApiError
from pytest_pgo_eks.local.assembly import (
    CAPABILITIES,
    DEFAULT,
    apply,
    base,
    deployment_available,
    node_ready,
    until_ready,
)
from pytest_pgo_eks.local.egress import Egress
from pytest_pgo_eks.local.gate import Gate
from pytest_pgo_eks.local.kubelet import Kubelet
from pytest_pgo_eks.local.kubelet.node import PORT as KUBELET_PORT
from pytest_pgo_eks.local.network import API_PORT, API_SERVICE_IP, CORE_IP, Network, three_zones
from pytest_pgo_eks.local.objects import DEPLOYMENT, NODE, SERVICE
from pytest_pgo_eks.local.operator.manifests import NAMESPACE, manifests
from pytest_pgo_eks.local.state import write
from pytest_pgo_eks.local.supervisor import Broken, Cluster
from pytest_pgo_eks.local.upstream import Upstream


async def start(cluster: Cluster, parts: contextlib.AsyncExitStack) -> None:
    """Start everything; what is to be closed at the end goes on ``parts``.

    :raises Broken: a part did not come up, or the server cannot be used.
    """
    order, state = cluster.order, cluster.state
    assert order.gate is not None
    upstream = Upstream(**json.loads(state.upstream_file.read_text()))
    nodes = three_zones()
    network = Network()
    async with cluster.phase("network"):
        parts.push_async_callback(network.stop)
        await network.plumb(nodes)
        gate = Gate(order.gate)
        parts.push_async_callback(gate.close)
        listener = socket.create_server((CORE_IP, API_PORT))
        listener.setblocking(False)
        await gate.relay(listener)
    certificates = pki.issue(
        state.pki,
        api_names=["none"],
        kubelet_names=[*(n.ip for n in nodes), *(n.name for n in nodes)],
    )
    ca_file, certificate, key = (state.pki / f"upstream.{kind}" for kind in ("ca", "crt", "key"))
    write(ca_file, upstream.ca)
    write(certificate, upstream.certificate or "")
    write(key, upstream.key or "")

    def client(who: str, **options: Any) -> ApiClient:
        made = ApiClient(
            f"https://{CORE_IP}:{API_PORT}",
            ca_file=ca_file,
            token=upstream.token,
            certificate=(certificate, key) if upstream.certificate else None,
            tls_name=upstream.tls_name,
            user_agent=f"pytest-pgo-eks-local/{who}",
            **options,
        )
        parts.push_async_callback(made.close)
        return made

    admin = client("admin")
    async with cluster.phase("API server answers"):
        try:
            service = await admin.get(SERVICE, "kubernetes", "default")
        except ApiError as error:
            raise Broken(f"the API server is of no use: {error}") from error
        if service["spec"]["clusterIP"] != API_SERVICE_IP:
            raise Broken(
                f"the API server's own Service is {service['spec']['clusterIP']}, not "
                f"{API_SERVICE_IP}: start it with --service-cluster-ip-range=10.96.0.0/16"
            )
    if order.egress:
        egress = Egress(Path(order.egress), {f"{node.ip}:{KUBELET_PORT}" for node in nodes})
        try:
            await egress.start()
        except OSError as error:
            raise Broken(f"--egress {order.egress}: {error.strerror}") from error
        parts.push_async_callback(egress.stop)
    kubelet = Kubelet(
        nodes=nodes,
        client_factory=lambda node: client(node, socket_factory=network.socket_factory(node)),
        network=network,
        state=state.path / "kubelet",
        tls=_kubelet_tls(certificates, ca_file),
        token=secrets.token_urlsafe(32),
    )
    version = order.operator_version or DEFAULT if order.operator else None
    async with cluster.phase("nodes, Services, policies and names"):
        parts.push_async_callback(kubelet.stop)
        await asyncio.gather(
            apply(admin, [*base(), *(manifests(version) if version else [])]),
            network.start(client("network"), nodes),
            kubelet.start(),
        )
        await until_ready(admin, NODE, len(nodes), node_ready)
    if version:
        async with cluster.phase("operator"):
            await until_ready(admin, DEPLOYMENT, 1, deployment_available, NAMESPACE)
    cluster.ready(
        {
            "name": order.name,
            "state_dir": str(state.path),
            "kubeconfig": order.kubeconfig,
            "kubernetes_version": (await admin.request("GET", "/version"))["gitVersion"],
            "capabilities": sorted(CAPABILITIES),
            "operator_version": f"{version}-stand-in" if version else None,
        }
    )


def _kubelet_tls(certificates: pki.Pki, clients: Path) -> ssl.SSLContext:
    """Return the kubelets' side of TLS: a kube-apiserver shows them a certificate of its CA."""
    context = certificates.kubelet.server_context()
    context.load_verify_locations(clients)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context
