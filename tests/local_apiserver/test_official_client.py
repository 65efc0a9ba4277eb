"""The API as the official Python client uses it: dynamically, and typed."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from typing import Any

import pytest
from standin.server import kubeconfig

from local_apiserver.api_bench import Bench, config_map, definition, deployment, pod, served, widget
from local_apiserver.fake_kubelet import TOKEN, kubelet_of


def _client(bench: Bench) -> Any:
    from kubernetes import config

    made: Any = config
    return made.new_client_from_config(str(kubeconfig(bench.server, bench.admin)))


def _dynamic(client: Any) -> Any:
    from kubernetes import dynamic

    made: Any = dynamic
    return made.DynamicClient(client)


@served()
async def test_the_dynamic_client_applies_lists_watches_and_deletes(bench: Bench) -> None:
    def scenario() -> None:
        from kubernetes.dynamic.exceptions import ConflictError, NotFoundError

        with _client(bench) as raw:
            client = _dynamic(raw)
            maps = client.resources.get(api_version="v1", kind="ConfigMap")
            where = {"name": "settings", "namespace": "default"}
            applied = maps.server_side_apply(
                body=config_map(a="1"), **where, field_manager="harness"
            )
            assert applied.data.to_dict() == {"a": "1"}
            version = maps.get(namespace="default").metadata.resourceVersion
            seen = []
            watching = threading.Event()

            def watch() -> None:
                stream = maps.watch(namespace="default", resource_version=version, timeout=10)
                watching.set()
                for event in stream:
                    seen.append((event["type"], event["object"].data.to_dict()))
                    if event["type"] == "DELETED":
                        return

            thread = threading.Thread(target=watch)
            thread.start()
            assert watching.wait(5)
            merge = "application/merge-patch+json"
            maps.patch(body={"data": {"a": "2"}}, **where, content_type=merge)
            with pytest.raises(ConflictError) as conflict:
                maps.server_side_apply(body=config_map(a="3"), **where, field_manager="other")
            assert "Apply failed with 1 conflict" in str(conflict.value.body)
            listed = maps.get(namespace="default", label_selector="none=such")
            assert listed.items == []
            maps.delete(**where)
            thread.join(10)
            assert seen == [("MODIFIED", {"a": "2"}), ("DELETED", {"a": "2"})]
            with pytest.raises(NotFoundError):
                maps.get(**where)

    await asyncio.to_thread(scenario)


@served()
async def test_the_dynamic_client_finds_custom_resources(bench: Bench) -> None:
    def scenario() -> None:
        with _client(bench) as raw:
            client = _dynamic(raw)
            crds = client.resources.get(kind="CustomResourceDefinition")
            schema = {"type": "object", "properties": {"size": {"type": "integer"}}}
            crds.create(body=definition(schema))
            widgets = client.resources.get(api_version="example.com/v1", kind="Widget")
            widgets.server_side_apply(body=widget(size=2), field_manager="harness", force=True)
            status = {"status": {"phase": "Ready"}}
            widgets.status.patch(
                name="one",
                namespace="default",
                body=status,
                content_type="application/merge-patch+json",
            )
            found = widgets.get(name="one", namespace="default").to_dict()
            assert (found["spec"], found["status"]) == ({"size": 2}, {"phase": "Ready"})

    await asyncio.to_thread(scenario)


@served(kubelet_token=TOKEN)
async def test_the_typed_client_creates_executes_and_forwards(bench: Bench) -> None:
    def scenario() -> None:
        from kubernetes import client
        from kubernetes.stream import portforward, stream

        with _client(bench) as raw:
            core: Any = client.CoreV1Api(raw)
            apps: Any = client.AppsV1Api(raw)
            made = apps.create_namespaced_deployment("default", deployment())
            assert made.spec.strategy.type == "RollingUpdate"
            apps.patch_namespaced_deployment("web", "default", {"spec": {"replicas": 7}})
            assert apps.read_namespaced_deployment_scale("web", "default").spec.replicas == 7
            second = core.create_namespaced_pod("default", pod("second"))
            assert second.status.phase == "Pending"
            assert core.read_namespaced_pod_log("web", "default") == "first line\n"
            done = stream(
                core.connect_get_namespaced_pod_exec,
                "web",
                "default",
                command=["fail"],
                stdout=True,
                stderr=True,
                _preload_content=False,
            )
            done.run_forever(timeout=5)
            assert (done.read_stdout(), done.read_stderr()) == ("out:fail", "err")
            assert done.returncode == 7
            done.close()
            forward = portforward(
                core.connect_get_namespaced_pod_portforward, "web", "default", ports="5432"
            )
            socket = forward.socket(5432)
            socket.settimeout(5)
            socket.sendall(b"hello")
            assert socket.recv(5) == b"HELLO"
            socket.close()
            forward.close()
            for thread in threading.enumerate():
                if thread.name.startswith("Kubernetes port forward"):
                    thread.join(10)
                    assert not thread.is_alive()

    async with kubelet_of(bench) as kubelet:
        # One ApiClient for all: stream() and portforward() replace its request function.
        await asyncio.to_thread(scenario)
        assert kubelet.asked[-1][0] == "/portForward/default/web"
        # The client leaves a WebSocket of exec to the garbage collector; here and not in a later test.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
