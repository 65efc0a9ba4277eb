"""The API as kubectl uses it. Needs a kubectl on PATH, 1.31 or newer."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path

from standin.server import kubeconfig

from local_apiserver.api_bench import Bench, definition, pod, served
from local_apiserver.fake_kubelet import TOKEN, kubelet_of
from local_apiserver.kubectl_here import needs_kubectl
from pytest_pgo_eks.local.objects import DEPLOYMENT, DISRUPTION_BUDGET, EVENT, NODE, POD, Obj

pytestmark = needs_kubectl

_MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: main
        image: example/app:1
        ports: [{containerPort: 80}]
        env: [{name: A, value: "1"}, {name: B, value: "2"}]
        volumeMounts: [{name: settings, mountPath: /etc/app}]
      volumes: [{name: settings, configMap: {name: settings}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: "1", b: "2"}
"""


@dataclass
class Kubectl:
    """Runs kubectl against one server, with a cache of its own."""

    config: Path

    async def run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        environment = os.environ | {
            "KUBECONFIG": str(self.config),
            "KUBECACHEDIR": str(self.config.parent / "cache"),
            "HOME": str(self.config.parent),
        }
        process = await asyncio.create_subprocess_exec(
            "kubectl",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        try:
            async with asyncio.timeout(30):
                out, errors = await process.communicate(stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, out.decode(), errors.decode()

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Return what it prints; it must succeed."""
        status, out, errors = await self.run(*arguments, stdin=stdin)
        assert status == 0, (arguments, out, errors)
        return out.strip()

    async def refused(self, *arguments: str, stdin: str = "") -> str:
        status, _, errors = await self.run(*arguments, stdin=stdin)
        assert status != 0, arguments
        return errors


def _kubectl(bench: Bench) -> Kubectl:
    return Kubectl(kubeconfig(bench.server, bench.admin))


@served()
async def test_apply_from_the_client_finds_what_has_changed(bench: Bench) -> None:
    kubectl = _kubectl(bench)
    created = await kubectl("apply", "-f", "-", stdin=_MANIFEST)
    assert created.splitlines() == [
        "deployment.apps/web created",
        "service/web created",
        "configmap/settings created",
    ]
    again = await kubectl("apply", "-f", "-", stdin=_MANIFEST)
    assert again.count("unchanged") == 3
    fewer = _MANIFEST.replace(', {name: B, value: "2"}', "").replace(', b: "2"', "")
    changed = await kubectl("apply", "-f", "-", stdin=fewer)
    assert changed.splitlines() == [
        "deployment.apps/web configured",
        "service/web unchanged",
        "configmap/settings configured",
    ]
    found = await bench.admin.get(DEPLOYMENT, "web", "default")
    container = found["spec"]["template"]["spec"]["containers"][0]
    assert container["env"] == [{"name": "A", "value": "1"}]
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    status, difference, _ = await kubectl.run("diff", "-f", "-", stdin=_MANIFEST)
    assert (status, '+  b: "2"' in difference) == (1, True)
    typo = await kubectl.refused("apply", "-f", "-", stdin=_MANIFEST.replace("replicas", "replica"))
    assert 'unknown field "spec.replica"' in typo


@served()
async def test_apply_on_the_server_names_the_other_manager(bench: Bench) -> None:
    kubectl = _kubectl(bench)
    applied = await kubectl("apply", "--server-side", "-f", "-", stdin=_MANIFEST)
    assert applied.count("serverside-applied") == 3
    await kubectl("scale", "deployment", "web", "--replicas=5")
    # The scale went through its own subresource; the applier still wants two.
    errors = await kubectl.refused("apply", "--server-side", "-f", "-", stdin=_MANIFEST)
    assert (
        'conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas' in errors
    )
    await kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=_MANIFEST)
    assert await kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "2"
    one = ("apply", "--server-side", "--field-manager=other", "-f", "-")
    other = _MANIFEST.replace("example/app:1", "example/app:2")
    errors = await kubectl.refused(*one, stdin=other)
    assert 'conflict with "kubectl": .spec.template.spec.containers[name="main"].image' in errors


@served()
async def test_apply_moves_from_the_client_to_the_server(bench: Bench) -> None:
    kubectl = _kubectl(bench)
    await kubectl("apply", "-f", "-", stdin=_MANIFEST)
    await kubectl("apply", "--server-side", "-f", "-", stdin=_MANIFEST)
    fewer = _MANIFEST.replace(', b: "2"', "").replace(', {name: B, value: "2"}', "")
    await kubectl("apply", "--server-side", "-f", "-", stdin=fewer)
    # Nobody else holds on to what the first apply had set.
    assert await kubectl("get", "cm", "settings", "-o", "jsonpath={.data}") == '{"a":"1"}'
    env = "jsonpath={.spec.template.spec.containers[0].env}"
    assert await kubectl("get", "deploy", "web", "-o", env) == '[{"name":"A","value":"1"}]'


@served()
async def test_get_prints_tables_yaml_and_json(bench: Bench) -> None:
    kubectl = _kubectl(bench)
    await kubectl("apply", "-f", "-", stdin=_MANIFEST)
    await bench.admin.create(POD, pod("p", labels={"app": "web"}), "default")
    wide = (await kubectl("get", "pods", "-o", "wide")).splitlines()
    assert wide[0].split()[:5] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert wide[1].split()[:4] == ["p", "0/1", "Pending", "0"]
    everything = await kubectl("get", "all,cm", "-A")
    for name in ("pod/p", "service/kubernetes", "deployment.apps/web", "configmap/settings"):
        assert name in everything
    assert "name: web" in await kubectl("get", "svc", "web", "-o", "yaml")
    listed = json.loads(await kubectl("get", "po", "-l", "app=web", "-o", "json"))
    assert [item["metadata"]["name"] for item in listed["items"]] == ["p"]
    fields = ("get", "po", "--field-selector", "status.phase=Pending", "-o", "name")
    assert await kubectl(*fields) == "pod/p"
    sorted_ = await kubectl("get", "svc", "--sort-by=.metadata.name", "-o", "name")
    assert sorted_.splitlines() == ["service/kubernetes", "service/web"]
    assert "NotFound" in await kubectl.refused("get", "pod", "none")


@served()
async def test_describe_reads_objects_and_events(bench: Bench) -> None:
    kubectl = _kubectl(bench)
    await kubectl("apply", "-f", "-", stdin=_MANIFEST)
    made = await bench.admin.create(POD, pod("p"), "default")
    metadata = made["metadata"]
    event: Obj = {
        "metadata": {"name": "p.1"},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": "p",
            "namespace": "default",
            "uid": metadata["uid"],
        },
        "reason": "Pulled",
        "message": "Container image is there",
        "type": "Normal",
        "count": 1,
        "firstTimestamp": metadata["creationTimestamp"],
        "lastTimestamp": metadata["creationTimestamp"],
        "source": {"component": "kubelet"},
    }
    await bench.admin.create(EVENT, event, "default")
    text = await kubectl("describe", "pod", "p")
    for part in ("Service Account:  default", "Pulled", "Container image is there"):
        assert part in text
    assert "2 desired" in await kubectl("describe", "deployment", "web")
    assert "10.96." in await kubectl("describe", "svc", "web")
    for kind in ("cm", "ns", "sa", "clusterrole", "endpointslice", "priorityclass"):
        assert "Name:" in await kubectl("describe", kind)
    assert "Pulled" in await kubectl("events", "--for", "pod/p")


@served()
async def test_objects_are_changed_from_the_command_line(bench: Bench) -> None:
    kubectl = _kubectl(bench)
    await kubectl("apply", "-f", "-", stdin=_MANIFEST)
    await kubectl("label", "deploy", "web", "tier=front")
    await kubectl("annotate", "deploy", "web", "note=hello")
    strategic = '{"spec":{"template":{"spec":{"containers":[{"name":"main","tty":true}]}}}}'
    await kubectl("patch", "deploy", "web", "-p", strategic)
    operation = '[{"op":"replace","path":"/spec/replicas","value":4}]'
    await kubectl("patch", "deploy", "web", "--type=json", "-p", operation)
    await kubectl("set", "image", "deploy/web", "main=example/app:3")
    await kubectl("rollout", "restart", "deploy/web")
    await kubectl(
        "patch", "deploy", "web", "--subresource=status", "-p", '{"status":{"replicas":1}}'
    )
    found = await bench.admin.get(DEPLOYMENT, "web", "default")
    assert found["metadata"]["labels"] == {"app": "web", "tier": "front"}
    assert found["metadata"]["annotations"]["note"] == "hello"
    assert (found["spec"]["replicas"], found["status"]["replicas"]) == (4, 1)
    container = found["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], container["tty"], len(container["env"])) == (
        "example/app:3",
        True,
        2,
    )
    assert (
        "kubectl.kubernetes.io/restartedAt" in found["spec"]["template"]["metadata"]["annotations"]
    )
    await kubectl("delete", "-f", "-", stdin=_MANIFEST)
    assert "service/web" not in await kubectl("get", "svc", "-o", "name")


@served()
async def test_create_writes_protobuf(bench: Bench) -> None:
    kubectl = _kubectl(bench)
    for arguments in (
        "ns made",
        "configmap c --from-literal=a=b",
        "secret generic s --from-literal=a=b",
        "deployment d --image=x --replicas=3 --port=80",
        "cronjob j --image=x --schedule=@daily",
        "job once --from=cronjob/j",
        "role r --verb=get,list --resource=pods,deployments.apps",
        "rolebinding rb --role=r --serviceaccount=default:default",
        "pdb p --selector=a=b --min-available=1",
        "sa someone",
        "quota q --hard=pods=2",
    ):
        assert "created" in await kubectl("create", *arguments.split())
    found = await bench.admin.get(DEPLOYMENT, "d", "default")
    assert found["spec"]["replicas"] == 3
    container = found["spec"]["template"]["spec"]["containers"][0]
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["image"] == "x"
    budget = await bench.admin.get(DISRUPTION_BUDGET, "p", "default")
    assert budget["spec"] == {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}
    token = await kubectl("create", "token", "default")
    assert token.count(".") == 2
    assert "pod/r" in await kubectl("run", "r", "--image=x")


@served()
async def test_rights_can_be_asked_for(bench: Bench) -> None:
    kubectl = _kubectl(bench)
    assert await kubectl("auth", "can-i", "create", "pods") == "yes"
    somebody = ("--as=system:serviceaccount:default:default",)
    status, out, _ = await kubectl.run("auth", "can-i", "get", "pods", *somebody)
    assert (status, out.strip()) == (1, "no")
    await kubectl("create", "role", "r", "--verb=get", "--resource=pods")
    await kubectl("create", "rolebinding", "r", "--role=r", "--serviceaccount=default:default")
    assert await kubectl("auth", "can-i", "get", "pods", *somebody) == "yes"
    assert "pods " in await kubectl("auth", "can-i", "--list", *somebody)
    assert "kubernetes-admin" in await kubectl("auth", "whoami")


@served()
async def test_a_list_of_objects_is_applied_like_its_items(bench: Bench) -> None:
    """No server serves the kind List: kubectl then asks for version 2 of OpenAPI, as protobuf."""
    kubectl = _kubectl(bench)
    names = ("a", "b")
    items = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}} for name in names
    ]
    both = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    assert "configmap/b created" in await kubectl("apply", "-f", "-", stdin=both)
    assert "configmap/b serverside" in await kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=both
    )
    assert "configmap/b unchanged" in await kubectl("apply", "-f", "-", stdin=both)
    assert 'configmap "b" deleted' in await kubectl("delete", "-f", "-", stdin=both)


@served()
async def test_resources_and_fields_are_explained(bench: Bench) -> None:
    kubectl = _kubectl(bench)
    schema: Obj = {
        "type": "object",
        "properties": {"size": {"type": "integer", "description": "How big."}},
    }
    made = json.dumps(definition(schema))
    assert "created" in await kubectl("apply", "-f", "-", stdin=made)
    resources = await kubectl("api-resources", "--no-headers")
    for name in ("pods", "deployments", "endpointslices", "leases", "widgets"):
        assert any(line.startswith(f"{name} ") for line in resources.splitlines())
    assert "example.com/v1" in await kubectl("api-versions")
    assert "livenessProbe" in await kubectl("explain", "pod.spec.containers")
    assert "How big." in await kubectl("explain", "wd.spec")
    assert "managedFields" in await kubectl("explain", "wd", "--recursive")
    assert "stand-in" in await kubectl("version")
    one = (
        '{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w"},"spec":{"size":1}}'
    )
    assert await kubectl("apply", "-f", "-", stdin=one) == "widget.example.com/w created"
    assert await kubectl("apply", "-f", "-", stdin=one) == "widget.example.com/w unchanged"
    bad = await kubectl.refused("apply", "-f", "-", stdin=one.replace('"size":1', '"sise":1'))
    assert 'unknown field "spec.sise"' in bad
    assert await kubectl("get", "wd", "-o", "name") == "widget.example.com/w"
    unknown = await kubectl.refused("apply", "-f", "-", stdin=one.replace("Widget", "Gadget"))
    assert 'no matches for kind "Gadget" in version "example.com/v1"' in unknown


@served()
async def test_wait_sees_conditions_and_deletion(bench: Bench) -> None:
    kubectl = _kubectl(bench)
    await bench.admin.create(POD, pod("p"), "default")
    ready = asyncio.create_task(kubectl("wait", "pod/p", "--for=condition=Ready", "--timeout=20s"))
    gone = asyncio.create_task(kubectl("wait", "pod/p", "--for=delete", "--timeout=20s"))
    while len(bench.server.store.collection(("", "pods"))._watchers) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    conditions = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    await bench.admin.patch(POD, "p", "default", conditions, sub="status")
    assert await ready == "pod/p condition met"
    assert not gone.done()
    await bench.admin.delete(POD, "p", "default")
    assert await gone == "pod/p condition met"
    late = await kubectl.refused("wait", "pod/p", "--for=condition=Ready", "--timeout=1s")
    assert "NotFound" in late


@served(kubelet_token=TOKEN)
async def test_exec_and_logs_reach_the_kubelet(bench: Bench) -> None:
    kubectl = _kubectl(bench)
    async with kubelet_of(bench) as kubelet:
        assert await kubectl("exec", "web", "--", "say", "a b") == "out:say a b"
        status, out, errors = await kubectl.run("exec", "web", "--", "fail")
        assert (status, out) == (7, "out:fail")
        assert errors.startswith("err")
        given = await kubectl("exec", "-i", "web", "--", "cat", stdin="typed END")
        assert given == "out:cattyped END"
        assert kubelet.asked[-1][2] == "v5.channel.k8s.io"
        assert await kubectl("logs", "web", "--tail=3") == "first line"
        assert ("tailLines", "3") in kubelet.asked[-1][1]
        assert "previous terminated container" in await kubectl.refused("logs", "web", "-p")


@served(kubelet_token=TOKEN)
async def test_drain_evicts_and_uncordon_opens_again(bench: Bench) -> None:
    kubectl = _kubectl(bench)
    async with kubelet_of(bench):
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u"}
        patch = {"metadata": {"ownerReferences": [{**owner, "controller": True}]}}
        await bench.admin.patch(POD, "web", "default", patch)
        drain = asyncio.create_task(kubectl("drain", "node-1", "--timeout=20s"))
        async with asyncio.timeout(20):
            while True:
                found = await bench.admin.find(POD, "web", "default")
                if found and "deletionTimestamp" in found["metadata"]:
                    break
                await asyncio.sleep(0.02)
        await bench.admin.delete(POD, "web", "default", grace_s=0)
        assert "node/node-1 drained" in await drain
        assert (await bench.admin.get(NODE, "node-1"))["spec"]["unschedulable"] is True
        assert "SchedulingDisabled" in await kubectl("get", "node", "node-1")
        await kubectl("uncordon", "node-1")
        assert "unschedulable" not in (await bench.admin.get(NODE, "node-1"))["spec"]
