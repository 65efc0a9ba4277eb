"""What makes an object invalid: names, labels, missing and immutable fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from pytest_pgo_eks.local.apiserver.problems import (
    FieldError,
    denied,
    duplicate,
    required,
    unsupported,
    wrong,
)
from pytest_pgo_eks.local.apiserver.resources import Resource
from pytest_pgo_eks.local.apiserver.schema import Type
from pytest_pgo_eks.local.objects import Obj, matches

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL = re.compile(rf"^{_LABEL}$")
_DNS_NAME = re.compile(rf"^{_LABEL}(\.{_LABEL})*$")
_DNS_1035 = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_NAME = re.compile(f"^{_QUALIFIED}$")
_VALUE = re.compile(f"^({_QUALIFIED})?$")
_CONFIG_KEY = re.compile(r"^[-._a-zA-Z0-9]+$")

_SAY_NAME = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    f"for validation is '{_LABEL}(\\.{_LABEL})*')"
)
_SAY_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    f"for validation is '{_LABEL}')"
)
_SAY_1035 = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
    "regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_SAY_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  "
    "or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_SAY_KEY = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_IMMUTABLE = "field is immutable"


def _length(field: str, limit: int) -> FieldError:
    return FieldError("Too long", field, f"may not be more than {limit} bytes")


def metadata(resource: Resource, obj: Obj) -> Iterator[FieldError]:
    """Check name, labels, annotations, finalizers and owners."""
    found = obj["metadata"]
    yield from _name(resource, found.get("name", ""))
    for name, value in (found.get("labels") or {}).items():
        prefix, slash, last = name.rpartition("/")
        if not _NAME.match(last) or len(last) > 63:
            yield wrong("metadata.labels", name, _SAY_KEY)
        elif slash and not _DNS_NAME.match(prefix):
            yield wrong("metadata.labels", name, f"prefix part {_SAY_NAME}")
        if len(value) > 63:
            yield wrong("metadata.labels", value, "must be no more than 63 bytes")
        elif not _VALUE.match(value):
            yield wrong("metadata.labels", value, _SAY_VALUE)
    annotations = found.get("annotations") or {}
    for name in annotations:
        if not _NAME.match(name.rpartition("/")[2]):
            yield wrong("metadata.annotations", name, _SAY_KEY)
    if sum(len(key) + len(value) for key, value in annotations.items()) > 256 * 1024:
        yield _length("metadata.annotations", 262144)
    for at, owner in enumerate(found.get("ownerReferences") or []):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                path = f"metadata.ownerReferences[{at}].{field}"
                yield wrong(path, "", "must not be empty")
    controllers = [one for one in found.get("ownerReferences") or [] if one.get("controller")]
    if len(controllers) > 1:
        yield wrong(
            "metadata.ownerReferences",
            found["ownerReferences"],
            'Only one reference can have Controller set to true. Found "true" in references for '
            f"{controllers[0]['kind']} {controllers[0]['name']} and "
            f"{controllers[1]['kind']} {controllers[1]['name']}",
        )
    for at, finalizer in enumerate(found.get("finalizers") or []):
        plain = finalizer in {"foregroundDeletion", "orphan", "kubernetes"}
        if not plain and "/" not in finalizer and resource.group == "":
            path = f"metadata.finalizers[{at}]"
            yield wrong(
                path,
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            )


def _name(resource: Resource, name: str) -> Iterator[FieldError]:
    field = "metadata.name"
    if not name:
        yield required(field, "name or generateName is required")
    elif resource.group == "rbac.authorization.k8s.io":
        if "/" in name or "%" in name or name in {".", ".."}:
            yield wrong(field, name, "may not contain '/'")
    elif resource.storage == ("", "namespaces"):
        if not _DNS_LABEL.match(name):
            yield wrong(field, name, _SAY_LABEL)
        if len(name) > 63:
            yield wrong(field, name, "must be no more than 63 bytes")
    elif resource.storage == ("", "services"):
        if not _DNS_1035.match(name):
            yield wrong(field, name, _SAY_1035)
        if len(name) > 63:
            yield wrong(field, name, "must be no more than 63 bytes")
    elif not _DNS_NAME.match(name):
        yield wrong(field, name, _SAY_NAME)
    elif len(name) > 253:
        yield wrong(field, name, "must be no more than 253 bytes")


# Types whose required fields validation really asks for; elsewhere zero values are accepted.
_STRICT = frozenset(
    {
        "Container",
        "PodSpec",
        "EnvVar",
        "VolumeMount",
        "Volume",
        "ConfigMapKeySelector",
        "SecretKeySelector",
        "ObjectFieldSelector",
        "KeyToPath",
        "HTTPGetAction",
        "TCPSocketAction",
        "ServicePort",
        "RoleRef",
        "RbacV1Subject",
        "PolicyRule",
        "DeploymentSpec",
        "StatefulSetSpec",
        "ReplicaSetSpec",
        "CronJobSpec",
        "PersistentVolumeClaimVolumeSource",
        "StorageClass",
        "HostPathVolumeSource",
    }
)
_LENIENT = {("StatefulSetSpec", "serviceName"), ("ConfigMapKeySelector", "name")}


def missing(value: Any, kind: Type, path: str = "") -> Iterator[FieldError]:
    """Yield every required field that a decoded object lacks (status is not looked at)."""
    if kind.form == "struct":
        if kind.name in _STRICT:
            for name in kind.required:
                if value.get(name) in (None, "", [], {}) and (kind.name, name) not in _LENIENT:
                    yield required(f"{path}.{name}".lstrip("."))
        for name, inner in value.items():
            if name in kind.fields and not (name == "status" and not path):
                yield from missing(inner, kind.fields[name], f"{path}.{name}")
    elif kind.form == "list" and kind.item.form == "struct":
        for at, inner in enumerate(value):
            yield from missing(inner, kind.item, f"{path}[{at}]")


def _containers(spec: Obj, path: str) -> Iterator[FieldError]:
    volumes = {one.get("name") for one in spec.get("volumes") or []}
    seen: set[str] = set()
    for at, volume in enumerate(spec.get("volumes") or []):
        name = volume.get("name", "")
        if name and not _DNS_LABEL.match(name):
            yield wrong(f"{path}.volumes[{at}].name", name, _SAY_LABEL)
        if name in seen:
            yield duplicate(f"{path}.volumes[{at}].name", name)
        seen.add(name)
    names: set[str] = set()
    for group in ("initContainers", "containers"):
        for at, container in enumerate(spec.get(group) or []):
            where = f"{path}.{group}[{at}]"
            yield from _container(container, where, volumes)
            name = container.get("name", "")
            if name in names:
                yield duplicate(f"{where}.name", name)
            names.add(name)
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        yield unsupported(
            f"{path}.restartPolicy", spec.get("restartPolicy"), ("Always", "OnFailure", "Never")
        )


def _container(container: Obj, where: str, volumes: set[Any]) -> Iterator[FieldError]:
    name = container.get("name", "")
    if name and not _DNS_LABEL.match(name):
        yield wrong(f"{where}.name", name, _SAY_LABEL)
    if not container.get("image"):
        yield required(f"{where}.image")
    if container.get("imagePullPolicy") not in ("Always", "IfNotPresent", "Never"):
        yield unsupported(
            f"{where}.imagePullPolicy",
            container.get("imagePullPolicy"),
            ("Always", "IfNotPresent", "Never"),
        )
    for at, mount in enumerate(container.get("volumeMounts") or []):
        if mount.get("name") not in volumes:
            field = f"{where}.volumeMounts[{at}].name"
            yield FieldError("Not found", field, "", mount.get("name"))
    for at, port in enumerate(container.get("ports") or []):
        yield from _port(port.get("containerPort"), f"{where}.ports[{at}].containerPort")
    resources = container.get("resources") or {}
    yield from _limits(resources, f"{where}.resources")


def _limits(resources: Obj, where: str) -> Iterator[FieldError]:
    from pytest_pgo_eks.local.apiserver.quantity import amount

    limits = resources.get("limits") or {}
    for name, value in (resources.get("requests") or {}).items():
        if name in limits and amount(value) > amount(limits[name]):
            yield wrong(
                f"{where}.requests",
                value,
                f"must be less than or equal to {name} limit of {limits[name]}",
            )


def _port(value: Any, field: str) -> Iterator[FieldError]:
    if value is None:
        yield required(field)
    elif not isinstance(value, int) or not 0 < value < 65536:
        yield wrong(field, value, "must be between 1 and 65535, inclusive")


def _pod(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    if old is None:
        yield from _containers(obj["spec"], "spec")
        return
    before, after = _frozen_pod(old["spec"]), _frozen_pod(obj["spec"])
    if before.get("nodeName") is None:
        after.pop("nodeName", None)
    if before != after:
        allowed = (
            "`spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
            "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
            "previously negative)"
        )
        yield denied("spec", f"pod updates may not change fields other than {allowed}")


def _frozen_pod(spec: Obj) -> Obj:
    """Return what may not change of a pod's spec."""
    free = {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"}
    found = {name: value for name, value in spec.items() if name not in free}
    for name in ("containers", "initContainers"):
        if name in found:
            found[name] = [{**one, "image": ""} for one in found[name]]
    return found


def _template(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    spec = obj["spec"]
    template = spec.get("template") or {}
    yield from _containers(template.get("spec") or {}, "spec.template.spec")
    selector = spec.get("selector")
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not selector:
        yield required("spec.selector")
    elif not matches(selector, labels):
        field = "spec.template.metadata.labels"
        yield wrong(field, labels, "`selector` does not match template `labels`")
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy != "Always":
        yield unsupported("spec.template.spec.restartPolicy", policy, ("Always",))
    if (spec.get("replicas") or 0) < 0:
        yield wrong("spec.replicas", spec["replicas"], "must be greater than or equal to 0")
    if old is not None and old["spec"].get("selector") != selector:
        yield wrong("spec.selector", selector, _IMMUTABLE)


def _stateful_set(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    yield from _template(obj, None)
    if old is None:
        return
    free = {
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    }
    before = {name: value for name, value in old["spec"].items() if name not in free}
    after = {name: value for name, value in obj["spec"].items() if name not in free}
    if before != after:
        yield denied(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
            "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
            "'minReadySeconds' are forbidden",
        )


def _job(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    spec = obj["spec"]
    template = (spec.get("template") or {}).get("spec") or {}
    yield from _containers(template, "spec.template.spec")
    if template.get("restartPolicy") not in ("OnFailure", "Never"):
        field = "spec.template.spec.restartPolicy"
        yield (
            FieldError("Required value", field, 'valid values: "OnFailure", "Never"')
            if not template.get("restartPolicy")
            else unsupported(field, template["restartPolicy"], ("OnFailure", "Never"))
        )
    if old is None:
        return
    for name in ("selector", "template", "completionMode", "podFailurePolicy"):
        if old["spec"].get(name) != spec.get(name):
            if name == "template" and old["spec"].get("suspend"):
                continue
            yield wrong(f"spec.{name}", spec.get(name), _IMMUTABLE)
    if spec.get("completionMode") != "Indexed" and old["spec"].get("completions") != spec.get(
        "completions"
    ):
        yield wrong("spec.completions", spec.get("completions"), _IMMUTABLE)


def _cron_job(obj: Obj, _old: Obj | None) -> Iterator[FieldError]:
    schedule = obj["spec"].get("schedule") or ""
    if schedule and not schedule.startswith("@") and len(schedule.split()) != 5:
        what = f"expected exactly 5 fields, found {len(schedule.split())}: {schedule.split()}"
        yield wrong("spec.schedule", schedule, what)
    template = ((obj["spec"].get("jobTemplate") or {}).get("spec") or {}).get("template") or {}
    yield from _containers(template.get("spec") or {}, "spec.jobTemplate.spec.template.spec")


def _service(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    spec = obj["spec"]
    kinds = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec.get("type") not in kinds:
        yield unsupported("spec.type", spec.get("type"), kinds)
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield required("spec.ports")
    seen: set[Any] = set()
    for at, port in enumerate(ports):
        where = f"spec.ports[{at}]"
        yield from _port(port.get("port"), f"{where}.port")
        if len(ports) > 1 and not port.get("name"):
            yield required(f"{where}.name")
        if port.get("name") and port["name"] in seen:
            yield duplicate(f"{where}.name", port["name"])
        seen.add(port.get("name"))
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            yield unsupported(f"{where}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))
    before = (old or {}).get("spec") or {}
    if before.get("clusterIP") and spec.get("type") != "ExternalName":
        if before["clusterIP"] != spec.get("clusterIP"):
            what = "may not change once set"
            yield wrong("spec.clusterIPs[0]", [spec.get("clusterIP")], what)


def _claim(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    from pytest_pgo_eks.local.apiserver.quantity import amount

    spec = obj["spec"]
    wanted = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    modes = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
    if not spec.get("accessModes"):
        yield required("spec.accessModes", "at least 1 access mode is required")
    for at, mode in enumerate(spec.get("accessModes") or []):
        if mode not in modes:
            yield unsupported(f"spec.accessModes[{at}]", mode, modes)
    if wanted is None:
        yield required("spec.resources[storage]")
    if old is None:
        return
    before = {key: value for key, value in old["spec"].items() if key != "resources"}
    after = {key: value for key, value in spec.items() if key != "resources"}
    if before.get("volumeName") is None:
        after.pop("volumeName", None)
    if before.get("storageClassName") is None:
        after.pop("storageClassName", None)
    if before != after:
        yield denied(
            "spec",
            "spec is immutable after creation except resources.requests and "
            "volumeAttributesClassName for bound claims",
        )
    had = ((old["spec"].get("resources") or {}).get("requests") or {}).get("storage")
    if wanted and had and amount(wanted) < amount(had):
        yield denied(
            "spec.resources.requests.storage", "field can not be less than status.capacity"
        )


def _config(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    for name in obj.get("data") or {}:
        if not _CONFIG_KEY.match(name):
            yield wrong(
                f"data[{name}]",
                name,
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. "
                "'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is "
                "'[-._a-zA-Z0-9]+')",
            )
    if old is None:
        return
    if obj.get("kind") == "Secret" and old.get("type") != obj.get("type"):
        yield wrong("type", obj.get("type"), _IMMUTABLE)
    if old.get("immutable"):
        if not obj.get("immutable"):
            yield denied("immutable", "field is immutable when `immutable` is set")
        if old.get("data") != obj.get("data"):
            yield denied("data", "field is immutable when `immutable` is set")


def _binding(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    if not obj.get("roleRef"):
        yield required("roleRef")
    elif old is not None and old["roleRef"] != obj["roleRef"]:
        yield wrong("roleRef", obj["roleRef"], "cannot change roleRef")


def _budget(obj: Obj, _old: Obj | None) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    if "minAvailable" in spec and "maxUnavailable" in spec:
        yield wrong("spec", spec, "minAvailable and maxUnavailable cannot be both set")


def _class(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    if old is None:
        return
    for name in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
        if old.get(name) != obj.get(name):
            yield denied(name, f"updates to {name} are forbidden.")


def _volume(obj: Obj, old: Obj | None) -> Iterator[FieldError]:
    spec = obj["spec"]
    if not (spec.get("capacity") or {}).get("storage"):
        yield required("spec.capacity")
    if not spec.get("accessModes"):
        yield required("spec.accessModes")
    if old is not None and old["spec"].get("hostPath") != spec.get("hostPath"):
        what = "spec.persistentvolumesource is immutable after creation"
        yield denied("spec.persistentvolumesource", what)


_RBAC = "rbac.authorization.k8s.io"
_CHECKS: dict[tuple[str, str], Callable[[Obj, Obj | None], Iterator[FieldError]]] = {
    ("", "pods"): _pod,
    ("", "services"): _service,
    ("", "persistentvolumeclaims"): _claim,
    ("", "persistentvolumes"): _volume,
    ("", "configmaps"): _config,
    ("", "secrets"): _config,
    ("apps", "deployments"): _template,
    ("apps", "replicasets"): _template,
    ("apps", "statefulsets"): _stateful_set,
    ("batch", "jobs"): _job,
    ("batch", "cronjobs"): _cron_job,
    ("policy", "poddisruptionbudgets"): _budget,
    ("storage.k8s.io", "storageclasses"): _class,
    (_RBAC, "clusterrolebindings"): _binding,
    (_RBAC, "rolebindings"): _binding,
}


def errors(resource: Resource, obj: Obj, old: Obj | None) -> list[FieldError]:
    """Return everything wrong with a defaulted object; ``old`` is what an update replaces."""
    found = list(metadata(resource, obj))
    if not resource.custom:
        found += missing(obj, resource.type)
        check = _CHECKS.get(resource.storage)
        if check is not None:
            found += check(obj, old)
    unique: dict[str, FieldError] = {str(error): error for error in found}
    return list(unique.values())
