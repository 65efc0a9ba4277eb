"""The stand-in's API server on a thread, without nodes or controllers: objects stay as they are put."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from standin.server import ca_file, kubeconfig, running_api_server

from pytest_pgo_eks.kube import Kube, eventually
from pytest_pgo_eks.local.operator.manifests import manifests

Object = dict[str, Any]
PGO = "postgres-operator.crunchydata.com"


@dataclass(frozen=True)
class Api:
    """Where it serves, and an administrator's client of it."""

    url: str
    authority: Path
    kubeconfig: Path
    kube: Kube

    def as_account(self, folder: Path, account: str, rules: list[Object] | None = None) -> Path:
        """Make a service account with these cluster-wide rules; return a kubeconfig of it."""
        meta = {"name": account, "namespace": "default"}
        self.kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": account}}
        self.kube.apply({**role, "kind": "ClusterRole", "rules": rules or []})
        subject = {"kind": "ServiceAccount", **meta}
        reference = {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": account,
        }
        self.kube.apply(
            {**role, "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [subject]}
        )
        path = f"/api/v1/namespaces/default/serviceaccounts/{account}/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = self.kube.raw("POST", path, asked)["status"]["token"]
        return self.with_user(folder / f"{account}.kubeconfig", {"token": token})

    def with_user(self, path: Path, user: Object, **changes: Any) -> Path:
        """Write a kubeconfig with another user, server or names."""
        context = changes.get("context", "there")
        cluster = changes.get("cluster", "there")
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": cluster,
                    "cluster": {
                        "server": changes.get("server", self.url),
                        "certificate-authority": str(self.authority),
                    },
                }
            ],
            "users": [{"name": "who", "user": user}],
            "contexts": [{"name": context, "context": {"cluster": cluster, "user": "who"}}],
            "current-context": changes.get("current", context),
        }
        path.write_text(yaml.safe_dump(document), "utf-8")
        return path


@contextlib.contextmanager
def serving() -> Iterator[Api]:
    """Serve until the block ends, with PGO's definition, three nodes in three zones, a class."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="API server")
    thread.start()
    context = running_api_server()
    try:
        server, client = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(30)
        with Kube(kubeconfig(server, client)) as kube:
            for one in [*manifests("6.0"), *nodes(), storage_class()]:
                kube.create(one)
                if one["kind"] == "Node":
                    kube.patch("Node", one["metadata"]["name"], None, ready(), subresource="status")
            # The definition is served a moment after it is stored.
            eventually(
                lambda: kube.find("CustomResourceDefinition", f"postgresclusters.{PGO}") or {},
                accept=lambda one: "Established" in str(one.get("status")),
                within_s=30,
                what="the definition to be served",
                successes=1,
            )
            yield Api(client.url, ca_file(server), kubeconfig(server, client), kube)
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def nodes() -> list[Object]:
    return [node(f"node-{number}", f"zone-{zone}") for number, zone in enumerate("abc", 1)]


def node(name: str, zone: str) -> Object:
    meta = {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {}}


def ready(memory: str = "8Gi") -> Object:
    return {
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"cpu": "4", "memory": memory, "pods": "110"},
        }
    }


def storage_class() -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "plain",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "example.com/plain",
    }
