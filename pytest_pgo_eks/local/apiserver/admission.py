"""What creation adds beyond defaults: service accounts, tolerations, addresses, storage classes.

The counterparts in a real server are the admission plugins ServiceAccount, Priority,
DefaultTolerationSeconds and DefaultStorageClass, and the allocators of Service addresses.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator

from pytest_pgo_eks.local.apiserver import problems
from pytest_pgo_eks.local.apiserver.quantity import amount
from pytest_pgo_eks.local.apiserver.store import Change, Store
from pytest_pgo_eks.local.objects import Obj

TOKEN_SECRET = "kubernetes.io/service-account-token"  # noqa: S105 - a type
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a directory
# Without vowels, as generated names are, so that they make no words.
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
NODE_PORTS = range(30000, 32768)


def suffix(length: int = 5) -> str:
    """Return the random end of a generated name."""
    return "".join(random.choices(_LETTERS, k=length))  # noqa: S311 - a name, no secret


class Allocators:
    """The ClusterIPs and node ports in use, kept current by the store's own changes."""

    def __init__(self, store: Store, network: str) -> None:
        self._range = ipaddress.IPv4Network(network)
        self._addresses: set[str] = set()
        self._ports: set[int] = set()
        store.listeners.append(self._changed)

    @property
    def first(self) -> str:
        """Return the address of the ``kubernetes`` Service."""
        return str(self._range[1])

    def _changed(self, change: Change) -> None:
        if change.now.obj.get("kind") != "Service" or change.now.obj["apiVersion"] != "v1":
            return
        if change.before is not None:
            self._addresses -= set(_addresses(change.before.obj))
            self._ports -= set(_ports(change.before.obj))
        if change.type != "DELETED":
            self._addresses |= set(_addresses(change.now.obj))
            self._ports |= set(_ports(change.now.obj))

    def fill(self, service: Obj, old: Obj | None) -> list[problems.FieldError]:
        """Give a Service its address, families and node ports; what an update omits is kept."""
        spec = service["spec"]
        before = (old or {}).get("spec") or {}
        if spec["type"] == "ExternalName":
            for name in ("clusterIP", "clusterIPs"):
                spec.pop(name, None)
            return []
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        wrong = self._address(spec, before)
        if spec["type"] in {"NodePort", "LoadBalancer"}:
            wrong += self._node_ports(spec, before)
        else:
            for port in spec.get("ports") or []:
                port.pop("nodePort", None)
        return wrong

    def _address(self, spec: Obj, before: Obj) -> list[problems.FieldError]:
        if not spec.get("clusterIP") and spec.get("clusterIPs"):
            spec["clusterIP"] = spec["clusterIPs"][0]
        if not spec.get("clusterIP") and before.get("clusterIP"):
            spec["clusterIP"] = before["clusterIP"]
        wanted = spec.get("clusterIP")
        if wanted and wanted != "None" and wanted != before.get("clusterIP"):
            error = self._refused(wanted)
            if error:
                return [problems.wrong("spec.clusterIPs", [wanted], error)]
        spec["clusterIP"] = wanted or self._free()
        spec["clusterIPs"] = [spec["clusterIP"]]
        return []

    def _refused(self, wanted: str) -> str:
        try:
            inside = ipaddress.IPv4Address(wanted) in self._range
        except ValueError:
            return "must be a valid IP address"
        if not inside:
            return (
                f"failed to allocate IP {wanted}: the provided network does not match the current "
                "range"
            )
        taken = f"failed to allocate IP {wanted}: provided IP is already allocated"
        return taken if wanted in self._addresses else ""

    def _free(self) -> str:
        # The first 256 stay for addresses that somebody asks for (DNS is .10).
        size = self._range.num_addresses
        while True:
            found = str(self._range[random.randrange(256, size - 1)])  # noqa: S311
            if found not in self._addresses:
                return found

    def _node_ports(self, spec: Obj, before: Obj) -> list[problems.FieldError]:
        had = {
            (port.get("name"), port["port"]): port["nodePort"]
            for port in before.get("ports") or []
            if "nodePort" in port
        }
        mine = set(had.values())
        wrong = []
        for at, port in enumerate(spec.get("ports") or []):
            wanted = port.get("nodePort") or had.get((port.get("name"), port.get("port")))
            if wanted is None:
                wanted = next(
                    one
                    for one in random.sample(NODE_PORTS, len(NODE_PORTS))
                    if one not in self._ports and one not in mine
                )
            elif wanted not in mine and wanted in self._ports:
                what = "provided port is already allocated"
                wrong.append(problems.wrong(f"spec.ports[{at}].nodePort", wanted, what))
            elif wanted not in NODE_PORTS:
                what = "provided port is not in the valid range. The range of valid ports is 30000-32767"
                wrong.append(problems.wrong(f"spec.ports[{at}].nodePort", wanted, what))
            port["nodePort"] = wanted
            mine.add(wanted)
        return wrong


def _addresses(service: Obj) -> Iterator[str]:
    spec = service.get("spec") or {}
    if spec.get("clusterIP") not in (None, "", "None"):
        yield spec["clusterIP"]


def _ports(service: Obj) -> Iterator[int]:
    for port in (service.get("spec") or {}).get("ports") or []:
        if "nodePort" in port:
            yield port["nodePort"]


def admit_pod(pod: Obj, store: Store) -> None:
    """Give a new pod its service account, token volume, priority and tolerations.

    :raises Problem: 403 when the service account or the priority class does not exist.
    """
    metadata, spec = pod["metadata"], pod["spec"]
    name = spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = name
    namespace = metadata["namespace"]
    account = store.get(("", "serviceaccounts"), namespace, name)
    if account is None:
        why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
        raise problems.forbidden("", "pods", metadata.get("name", ""), why)
    if "imagePullSecrets" not in spec and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(one) for one in account["imagePullSecrets"]]
    automount = spec.get("automountServiceAccountToken")
    if automount is None:
        automount = account.get("automountServiceAccountToken", True)
    if automount:
        _mount_token(spec)
    _prioritise(pod, store)
    _tolerate(spec)
    pod["status"] = {"phase": "Pending", "qosClass": quality(spec)}


def _mount_token(spec: Obj) -> None:
    volume = f"kube-api-access-{suffix()}"
    mounted = False
    for container in (spec.get("initContainers") or []) + (spec.get("containers") or []):
        mounts = container.setdefault("volumeMounts", [])
        if any(mount.get("mountPath") == _TOKEN_PATH for mount in mounts):
            continue
        mounts.append({"mountPath": _TOKEN_PATH, "name": volume, "readOnly": True})
        mounted = True
    if not mounted:
        return
    ca = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    reference = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": ca},
        {"downwardAPI": {"items": [{"fieldRef": reference, "path": "namespace"}]}},
    ]
    projected = {"defaultMode": 420, "sources": sources}
    spec.setdefault("volumes", []).append({"name": volume, "projected": projected})


def _prioritise(pod: Obj, store: Store) -> None:
    spec = pod["spec"]
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    name = spec.get("priorityClassName")
    if not name:
        spec.setdefault("priority", 0)
        return
    found = store.get(("scheduling.k8s.io", "priorityclasses"), "", name)
    if found is None:
        why = f"no PriorityClass with name {name} was found"
        raise problems.forbidden("", "pods", pod["metadata"].get("name", ""), why)
    spec["priority"] = found.get("value", 0)
    spec["preemptionPolicy"] = found.get("preemptionPolicy", "PreemptLowerPriority")


def _tolerate(spec: Obj) -> None:
    tolerations = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        known = any(
            one.get("key") in (key, None, "") and one.get("effect") in ("NoExecute", None, "")
            for one in tolerations
        )
        if not known:
            tolerations.append(
                {"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300}
            )


def quality(spec: Obj) -> str:
    """Return the pod's QoS class."""
    containers = (spec.get("containers") or []) + (spec.get("initContainers") or [])
    asked = [one.get("resources") or {} for one in containers]
    wanted = [
        (one.get("requests") or {}).get(name) or (one.get("limits") or {}).get(name)
        for one in asked
        for name in ("cpu", "memory")
    ]
    if not any(wanted):
        return "BestEffort"
    exact = all(
        (one.get("limits") or {}).get(name)
        and (one.get("requests") or {}).get(name) == one["limits"][name]
        for one in asked
        for name in ("cpu", "memory")
    )
    return "Guaranteed" if exact else "Burstable"


def admit_claim(claim: Obj, store: Store) -> None:
    """Give a new claim the default storage class and its first phase."""
    spec = claim["spec"]
    claim["status"] = {"phase": "Pending"}
    metadata = claim["metadata"]
    metadata["finalizers"] = [
        *(one for one in metadata.get("finalizers") or [] if one != "kubernetes.io/pvc-protection"),
        "kubernetes.io/pvc-protection",
    ]
    if "storageClassName" in spec:
        return
    if "volume.beta.kubernetes.io/storage-class" in (metadata.get("annotations") or {}):
        return
    for stored in store.collection(("storage.k8s.io", "storageclasses")):
        annotations = stored.obj["metadata"].get("annotations") or {}
        if annotations.get(_DEFAULT_CLASS) == "true":
            spec["storageClassName"] = stored.obj["metadata"]["name"]
            return


def admit_growth(claim: Obj, old: Obj, store: Store) -> None:
    """Refuse a claim that asks for more than before of a class that does not expand.

    :raises Problem: 403.
    """
    wanted, had = _storage(claim), _storage(old)
    if not wanted or not had or amount(wanted) <= amount(had):
        return
    name = claim["spec"].get("storageClassName", "")
    found = store.get(("storage.k8s.io", "storageclasses"), "", name)
    if found is None or not found.get("allowVolumeExpansion"):
        why = (
            "only dynamically provisioned pvc can be resized and the storageclass that provisions "
            "the pvc must support resize"
        )
        raise problems.forbidden("", "persistentvolumeclaims", claim["metadata"]["name"], why)


def _storage(claim: Obj) -> str | None:
    resources = (claim.get("spec") or {}).get("resources") or {}
    found: str | None = (resources.get("requests") or {}).get("storage")
    return found


def admit_job(job: Obj) -> None:
    """Give a new Job the selector and the labels by which it finds its pods."""
    spec, metadata = job["spec"], job["metadata"]
    if spec.get("manualSelector"):
        return
    uid, name = metadata["uid"], metadata["name"]
    template = spec["template"].setdefault("metadata", {})
    labels = template.setdefault("labels", {})
    for prefix in ("batch.kubernetes.io/", ""):
        labels[f"{prefix}controller-uid"] = uid
        labels[f"{prefix}job-name"] = name
    if not spec.get("selector"):
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
