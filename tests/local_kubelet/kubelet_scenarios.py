"""What pods do on the stand-in's nodes: start, restart, end. Each function is a scenario."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from kubelet_bed import SPACE, Bed, condition, container, phase

from pytest_pgo_eks.local.network.faults import Faults
from pytest_pgo_eks.local.objects import NODE, POD, SECRET, Obj

SHELL = {"image": "stand-in/python:3"}


def script(text: str, **more: Any) -> Obj:
    return {"command": ["sh", "-c", text], **SHELL, **more}


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def quick_start(bed: Bed) -> Any:
    """A pod is running soon after it is bound; the second one shows it without first-time work."""
    await bed.pod("warm")
    await bed.running("warm")
    began = time.monotonic()
    await bed.pod("quick")
    pod = await bed.running("quick")
    took = time.monotonic() - began
    text = await bed.shell("quick", "id -u; hostname; cat /etc/resolv.conf; cat /etc/hosts")
    assert text.splitlines()[:2] == ["0", "quick"], text
    assert "search default.svc.cluster.local svc.cluster.local cluster.local" in text
    assert "nameserver 10.96.0.10" in text
    assert "options ndots:5" in text
    assert f"{pod['status']['podIP']}\tquick" in text
    assert pod["status"]["hostIP"] == "10.250.0.11"
    assert [condition(pod, kind) for kind in ("Initialized", "PodScheduled")] == ["True", "True"]
    await bed.until_event("quick", "Started")
    assert await bed.reasons("quick") == ["Pulled", "Created", "Started"]
    return took


async def shared_processes(bed: Bed) -> None:
    """PGO's pods share processes: parents are 0, PID 1 reaps, a container dies as a whole."""
    orphan = "(sh -c 'exec sleep 300' &) ; exec sleep 1000"
    await bed.pod("shared", script(orphan), script("exec sleep 2000"), shareProcessNamespace=True)
    await bed.until("shared", lambda p: condition(p, "Ready") == "True")
    look = "ps -eo pid,ppid,args --no-headers"
    lines: list[list[str]] = []
    for _ in range(50):
        lines = [line.split(None, 2) for line in (await bed.shell("shared", look)).splitlines()]
        if {"sleep 300", "sleep 1000", "sleep 2000"} <= {line[2] for line in lines}:
            break
    by_args = {line[2]: line for line in lines}
    assert by_args["sleep infinity"][:2] == ["1", "0"], lines
    assert by_args["sleep 1000"][1] == "0", lines
    assert by_args["sleep 2000"][1] == "0", lines
    assert by_args["sleep 300"][1] == "1", lines
    # An orphan that ends is reaped, and no signal from inside reaches PID 1.
    await bed.shell("shared", "(sh -c 'exec sleep 0.01' &); kill -9 1")
    await asyncio.sleep(0.1)
    assert "defunct" not in await bed.shell("shared", look)
    # The end of a container's main process ends what it left behind, and nothing else.
    pid = by_args["sleep 1000"][0]
    await bed.shell("shared", f"kill -9 {pid}", container="c1")
    pod = await bed.until("shared", lambda p: container(p)["restartCount"] == 1)
    assert container(pod)["lastState"]["terminated"]["exitCode"] == 137
    assert container(pod, 1)["restartCount"] == 0
    after = await bed.shell("shared", look, container="c1")
    assert by_args["sleep 300"][0] not in {line.split()[0] for line in after.splitlines()}, after
    assert "sleep 2000" in after


async def separate_processes(bed: Bed) -> None:
    """Without sharing a container's program is PID 1 and sees no other container."""
    await bed.pod("apart", script("exec sleep 1000"), script("exec sleep 2000"))
    await bed.until("apart", lambda p: condition(p, "Ready") == "True")
    text = await bed.shell("apart", "ps -eo pid,args --no-headers")
    assert text.split(None, 3)[:3] == ["1", "sleep", "1000"], text
    assert "sleep 2000" not in text


async def init_containers(bed: Bed) -> None:
    """Init containers run one after the other, and a failing one is run again."""
    volume = [{"name": "v", "emptyDir": {}}]
    mount = [{"name": "v", "mountPath": "/v"}]
    inits = [
        script("echo one >> /v/log", name="one", volumeMounts=mount),
        script(
            "echo two >> /v/log; test $(grep -c two /v/log) = 2", name="two", volumeMounts=mount
        ),
    ]
    await bed.pod(
        "inits", script("sleep 1000", volumeMounts=mount), initContainers=inits, volumes=volume
    )
    pod = await bed.running("inits")
    assert await bed.shell("inits", "cat /v/log") == "one\ntwo\ntwo\n"
    statuses = pod["status"]["initContainerStatuses"]
    assert [s["restartCount"] for s in statuses] == [0, 1]
    assert all(s["state"]["terminated"]["exitCode"] == 0 for s in statuses)


async def failed_init(bed: Bed) -> None:
    inits = [script("exit 3", name="bad")]
    await bed.pod("no-init", script("sleep 1000"), initContainers=inits, restartPolicy="Never")
    pod = await bed.until("no-init", lambda p: phase(p) == "Failed")
    assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert condition(pod, "Initialized") == "False"


async def jobs(bed: Bed) -> None:
    """Pods of Jobs end as Succeeded or Failed and keep their logs."""
    await bed.pod(
        "works", script("echo done"), restartPolicy="Never", terminationGracePeriodSeconds=60
    )
    await bed.pod(
        "breaks",
        script("echo no >&2; echo why > /dev/termination-log; exit 7"),
        restartPolicy="Never",
    )
    await bed.pod(
        "retries",
        script(
            "test -e /v/x || { touch /v/x; exit 1; }",
            volumeMounts=[{"name": "v", "mountPath": "/v"}],
        ),
        volumes=[{"name": "v", "emptyDir": {}}],
        restartPolicy="OnFailure",
    )
    done = await bed.until("works", lambda p: phase(p) == "Succeeded")
    failed = await bed.until("breaks", lambda p: phase(p) == "Failed")
    retried = await bed.until("retries", lambda p: phase(p) == "Succeeded")
    assert container(done)["state"]["terminated"]["reason"] == "Completed"
    assert container(failed)["state"]["terminated"]["exitCode"] == 7
    assert container(failed)["state"]["terminated"]["message"] == "why\n"
    assert container(retried)["restartCount"] == 1
    ready = next(c for c in done["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PodCompleted")
    assert await bed.logs("works") == "done\n"
    assert await bed.logs("breaks") == "no\n"
    await bed.api.delete(POD, "works", SPACE)
    await bed.gone("works", within_s=20)  # a third of its grace period


async def crash_loop(bed: Bed) -> None:
    """The first restart is immediate, later ones back off; both runs' logs can be read."""
    await bed.pod("loops", script("echo run $$; exit 2"), shareProcessNamespace=True)
    pod = await bed.until("loops", lambda p: "CrashLoopBackOff" in str(container(p).get("state")))
    status = container(pod)
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["exitCode"] == 2
    assert "back-off" in status["state"]["waiting"]["message"]
    assert phase(pod) == "Running"
    await bed.until_event("loops", "BackOff")
    assert (await bed.logs("loops", previous="true")).startswith("run ")


async def graceful_end(bed: Bed) -> None:
    """preStop, then SIGTERM, then the pod's object goes, with the exit codes in its last status."""
    # The hook waits for the trap: a signal that came before it would end the shell.
    before = "until test -e /v/set; do sleep 0.05; done; echo hook > /v/hook"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", before]}}}
    trap = "trap 'test -e /v/hook && exit 5' TERM; touch /v/set; while :; do sleep 0.05; done"
    await bed.pod(
        "gentle",
        script(trap, lifecycle=hook, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=[{"name": "v", "emptyDir": {}}],
        terminationGracePeriodSeconds=60,
    )
    await bed.running("gentle")
    listed = await bed.api.list(POD, SPACE)
    seen: list[Obj] = []

    async def watch() -> None:
        async for event in bed.api.watch(POD, SPACE, resource_version=listed.resource_version):
            if event.object["metadata"]["name"] == "gentle":
                seen.append(event.object)
                if event.type == "DELETED":
                    return

    watching = asyncio.create_task(watch())
    await bed.api.delete(POD, "gentle", SPACE)
    await bed.gone("gentle", within_s=20)  # a third of its grace period
    await asyncio.wait_for(watching, 20)
    codes = [container(p).get("state", {}).get("terminated", {}).get("exitCode") for p in seen]
    assert codes[-1] == 5, codes
    await bed.until_event("gentle", "Killing")


async def frozen_end(bed: Bed) -> None:
    """A stopped main process does not see SIGTERM: SIGKILL ends it after the grace period."""
    await bed.pod(
        "frozen",
        script("exec sleep 1000"),
        shareProcessNamespace=True,
        terminationGracePeriodSeconds=1,
    )
    await bed.running("frozen")
    runner = bed.worker("frozen").runner("c0")
    assert runner is not None
    assert runner.container is not None
    pid = runner.container.main_pid
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    await bed.api.delete(POD, "frozen", SPACE)
    await bed.gone("frozen")
    took = time.monotonic() - began
    assert took > 0.9, took
    assert not alive(pid)


async def forced_end(bed: Bed) -> float:
    """A pod that is forced out of the API is killed at once, before its successor starts."""
    first = await bed.pod(
        "forced", script("trap '' TERM; sleep 1000"), terminationGracePeriodSeconds=30
    )
    await bed.running("forced")
    runner = bed.worker("forced").runner("c0")
    assert runner is not None
    assert runner.container is not None
    pid = runner.container.main_pid
    began = time.monotonic()
    await bed.api.delete(POD, "forced", SPACE, grace_s=0)
    assert await bed.get("forced") is None
    await bed.pod("forced", script("sleep 1000"))
    second = await bed.running("forced")
    took = time.monotonic() - began
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert not alive(pid)
    return took


async def shortened_end(bed: Bed) -> None:
    """A second deletion may shorten the first one's grace period."""
    await bed.pod("late", script("trap '' TERM; sleep 1000"), terminationGracePeriodSeconds=60)
    await bed.running("late")
    await bed.api.delete(POD, "late", SPACE)
    await asyncio.sleep(0.2)
    assert await bed.get("late")
    await bed.api.delete(POD, "late", SPACE, grace_s=1)
    await bed.gone("late", within_s=20)  # a third of the longer one


async def early_end(bed: Bed) -> None:
    """A pod that never got its volumes can be deleted."""
    volumes = [{"name": "v", "secret": {"secretName": "never"}}]
    await bed.pod("early", volumes=volumes, terminationGracePeriodSeconds=60)
    await bed.until_event("early", "FailedMount")
    await bed.api.delete(POD, "early", SPACE)
    await bed.gone("early", within_s=20)  # a third of its grace period


async def no_image(bed: Bed) -> None:
    await bed.pod("imageless", {"image": "docker.io/library/nginx:1"})
    pod = await bed.until("imageless", lambda p: "ImagePullBackOff" in str(container(p)))
    assert "stand-in/postgres" in container(pod)["state"]["waiting"]["message"]
    assert phase(pod) == "Pending"
    messages = [e["message"] for e in await bed.until_event("imageless", "BackOff")]
    assert "Error: ErrImagePull" in messages


async def late_config(bed: Bed) -> None:
    """A missing key holds a container back until it is there."""
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}]
    await bed.pod("waits", script("exec sleep 1000", env=env))
    pod = await bed.until("waits", lambda p: "CreateContainerConfigError" in str(container(p)))
    assert 'configmap "late" not found' in container(pod)["state"]["waiting"]["message"]
    await bed.config("late", {"a": "found"})
    await bed.running("waits", 2)
    assert await bed.shell("waits", "echo $A") == "found\n"


async def no_program(bed: Bed) -> None:
    await bed.pod("missing", {"command": ["/no/such/program"]}, restartPolicy="Never")
    pod = await bed.until("missing", lambda p: phase(p) == "Failed")
    ended = container(pod)["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 128), ended
    assert "/no/such/program" in ended["message"]


async def users(bed: Bed) -> None:
    """runAsUser shows inside, runAsNonRoot refuses root, and a read-only root is one."""
    context = {"runAsUser": 1234, "runAsGroup": 77, "readOnlyRootFilesystem": True}
    # Whatever the supervisor's own is.
    os.umask(0o077)
    await bed.pod("user", script("exec sleep 1000", securityContext=context))
    await bed.pod("root", script("exec sleep 1000", securityContext={"runAsNonRoot": True}))
    await bed.running("user")
    assert await bed.shell("user", "id -u; id -g; whoami") == "1234\n77\nuser\n"
    assert (
        await bed.shell(
            "user", "umask; stat -c %a / /dev /var /etc /usr /tmp /srv 2>/dev/null | sort -u"
        )
        == "0022\n1777\n755\n"
    )
    refused = await bed.exec("user", "sh", "-c", "touch /x")
    assert b"Read-only file system" in refused.stderr, refused
    writable = await bed.exec("user", "sh", "-c", "touch /usr/x /etc/x")
    assert writable.exit_status != 0
    pod = await bed.until("root", lambda p: "CreateContainerConfigError" in str(container(p)))
    assert "runAsNonRoot" in container(pod)["state"]["waiting"]["message"]


async def environment(bed: Bed) -> None:
    await bed.config("settings", {"one": "1", "two": "2"})
    await bed.api.create(
        SECRET, {"metadata": {"name": "hidden", "namespace": SPACE}, "stringData": {"pw": "s3"}}
    )
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "pw"}}},
        {"name": "URL", "value": "$(NAME):$(X_one)/$$(NAME)/$(NOBODY)"},
        {"name": "LD_PRELOAD", "value": "/usr/lib64/libnss_wrapper.so"},
    ]
    source = [{"prefix": "X_", "configMapRef": {"name": "settings"}}]
    await bed.pod(
        "env",
        {
            "args": ["$(NAME)"],
            "command": ["sh", "-c", "echo $0; exec sleep 1000"],
            "env": env,
            "envFrom": source,
        },
    )
    pod = await bed.running("env")
    done = await bed.exec("env", "sh", "-c", "echo $NAME $IP $NODE $PW $URL $X_two; env")
    # A library that is preloaded but missing would complain here.
    assert done.stderr == b"", done.stderr
    first = done.stdout.decode().splitlines()[0]
    assert first == f"env {pod['status']['podIP']} node-1 s3 env:1/$(NAME)/$(NOBODY) 2"
    assert b"KUBERNETES_SERVICE_HOST=10.96.0.1" in done.stdout
    assert await bed.logs("env") == "env\n"


async def sidecars(bed: Bed) -> None:
    """A restartable init container runs beside the others and ends with them."""
    inits = [script("exec sleep 1000", name="side", restartPolicy="Always")]
    await bed.pod(
        "sided",
        script("sleep 0.3"),
        initContainers=inits,
        restartPolicy="Never",
        shareProcessNamespace=True,
    )
    pod = await bed.until("sided", lambda p: phase(p) == "Running")
    assert "running" in pod["status"]["initContainerStatuses"][0]["state"]
    await bed.until("sided", lambda p: phase(p) == "Succeeded")


async def nodes(bed: Bed) -> None:
    listed = (await bed.api.list(NODE)).items
    assert [n["metadata"]["name"] for n in listed] == ["node-1", "node-2", "node-3"]
    node = listed[1]
    assert node["metadata"]["labels"]["topology.kubernetes.io/zone"] == "zone-b"
    assert node["status"]["addresses"][0] == {"type": "InternalIP", "address": "10.250.0.12"}
    ready = next(c for c in node["status"]["conditions"] if c["type"] == "Ready")
    assert ready["status"] == "True"
    assert int(node["status"]["capacity"]["pods"]) == 110
    lease = await bed.api.request(
        "GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-2"
    )
    assert lease["spec"]["holderIdentity"] == "node-2"
    assert lease["spec"]["leaseDurationSeconds"] == 40


async def lost_node(bed: Bed) -> None:
    """A node that comes back starts its pods again, and fails those that must not run twice."""
    await bed.pod("survivor", script("exec sleep 1000"), node=3)
    await bed.pod("job", script("exec sleep 1000"), node=3, restartPolicy="Never")
    await bed.running("survivor")
    await bed.running("job")
    runner = bed.worker("survivor").runner("c0")
    assert runner is not None
    assert runner.container is not None
    pid = runner.container.main_pid
    await bed.kubelet.lose("node-3")
    assert not alive(pid)
    found = await bed.get("survivor")
    assert found is not None
    # Nothing told the API.
    assert phase(found) == "Running"
    await bed.kubelet.restore("node-3")
    pod = await bed.until("survivor", lambda p: container(p)["restartCount"] == 1)
    assert phase(pod) == "Running"
    failed = await bed.until("job", lambda p: phase(p) == "Failed")
    assert container(failed)["state"]["terminated"]["reason"] == "ContainerStatusUnknown"


async def no_leaks(bed: Bed) -> dict[str, int]:
    """Pods, restarts and execs leave no descriptor, task, mount, or process behind."""

    async def round_() -> None:
        volumes = [{"name": "m", "emptyDir": {"medium": "Memory"}}]
        mounts = [{"name": "m", "mountPath": "/m"}]
        probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
        for number in range(3):
            name = f"leak-{number}"
            one = script("exec sleep 1000", volumeMounts=mounts, readinessProbe=probe)
            await bed.pod(name, one, shareProcessNamespace=number == 0, volumes=volumes)
        for number in range(3):
            name = f"leak-{number}"
            await bed.until(name, lambda p: condition(p, "Ready") == "True")
            await bed.shell(name, "echo x")
            worker = bed.worker(name)
            await bed.api.delete(POD, name, SPACE, grace_s=0)
            await asyncio.wait_for(worker.gone.wait(), 10)

    def count() -> dict[str, int]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return {
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "tasks": len(asyncio.all_tasks()),
            "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
            "children": len(children),
        }

    await round_()
    await asyncio.sleep(0.5)
    before = count()
    await round_()
    await round_()
    await asyncio.sleep(0.5)
    after = count()
    # Idle connections of the clients come and go.
    assert abs(after.pop("descriptors") - before.pop("descriptors")) <= 4, (before, after)
    assert after == before, (before, after)
    return after


async def cut_node(bed: Bed) -> float:
    """A node without its network runs on, and catches up soon after the network is back."""
    faults = Faults(bed.network)
    await faults.start()
    await bed.pod("cut", script("exec sleep 1000"), node=2)
    await bed.running("cut")
    runner = bed.worker("cut").runner("c0")
    assert runner is not None
    assert runner.container is not None
    pid = runner.container.main_pid
    fault = await faults.inject({"kind": "partition-node", "node": "node-2"})
    await bed.api.delete(POD, "cut", SPACE, grace_s=0)
    await bed.pod("later", script("exec sleep 1000"), node=2)
    await asyncio.sleep(3)
    assert alive(pid)
    await faults.undo(fault["id"])
    began = time.monotonic()
    await bed.running("later")
    for _ in range(2000):
        if not alive(pid):
            break
        await asyncio.sleep(0.01)
    assert not alive(pid)
    return time.monotonic() - began


async def limits(bed: Bed) -> None:
    """A pod that outlives its own deadline fails, and stays in the API to say why."""
    await bed.pod("outlived", script("exec sleep 1000"), activeDeadlineSeconds=5)
    await bed.running("outlived")
    pod = await bed.until("outlived", lambda p: phase(p) == "Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"
    assert "terminated" in container(pod)["state"]
    await bed.until_event("outlived", "DeadlineExceeded")
    volumes = [{"name": "tmp", "emptyDir": {"sizeLimit": "1Mi"}}]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    greedy = script("head -c 2000000 /dev/zero > /tmp/x; sleep 1000", volumeMounts=mounts)
    await bed.pod("greedy", greedy, volumes=volumes)
    pod = await bed.until("greedy", lambda p: phase(p) == "Failed")
    assert pod["status"]["reason"] == "Evicted"
    assert pod["status"]["message"] == 'Usage of EmptyDir volume "tmp" exceeds the limit "1Mi". '
    await bed.api.delete(POD, "greedy", SPACE)
    await bed.gone("greedy")
