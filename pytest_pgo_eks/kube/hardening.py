"""What the "restricted" Pod Security Standard asks of a pod, for the pods that are our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# A number, so that runAsNonRoot can be judged without looking into the image.
_USER = 65532
SCRATCH = "/tmp"  # noqa: S108 -- the only directory of the container that can be written to


def pod_spec(
    name: str,
    image: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    node_selector: Mapping[str, str] | None = None,
    grace_s: int = 1,
    service_account: str | None = None,
    restart: str = "Always",
) -> dict[str, Any]:
    """Return the spec of a pod with one container: any node, amd64 or arm64, nothing but Linux.

    Its root file system is read-only; :data:`SCRATCH` is a volume that outlives the container. The
    limit on memory keeps a pod of ours that went wrong from being the fault that is looked for.
    """
    container: dict[str, Any] = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "resources": {
            "requests": {"cpu": "100m", "memory": "64Mi"},
            "limits": {"memory": "1Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH}],
    }
    if env:
        container["env"] = [{"name": key, "value": value} for key, value in env.items()]
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": grace_s,
        "restartPolicy": restart,
        "enableServiceLinks": False,
        "nodeSelector": {"kubernetes.io/os": "linux", **(node_selector or {})},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }
    if service_account:
        spec["serviceAccountName"] = service_account
    else:
        spec["automountServiceAccountToken"] = False
    return spec
