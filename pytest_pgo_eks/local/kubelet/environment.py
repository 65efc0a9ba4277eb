"""The environment and the command line of a container, from its specification."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_pgo_eks.local.kubelet.references import Place, field, resource
from pytest_pgo_eks.local.objects import Obj

_REFERENCE = re.compile(r"\$(\$|\(([^)]*)\))")
_NAME = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")

Lookup = Callable[[str], Obj | None]


class ConfigProblem(Exception):
    """A container cannot be configured yet: CreateContainerConfigError."""


@dataclass(frozen=True)
class Sources:
    """Where values come from: Secrets and ConfigMaps of the pod's namespace, and its Services."""

    secret: Lookup
    config_map: Lookup
    services: Mapping[str, str]


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replace ``$(NAME)``; ``$$`` is a dollar, and an unknown reference stays as it is."""

    def one(found: re.Match[str]) -> str:
        if found[1] == "$":
            return "$"
        return known.get(found[2], found[0])

    return _REFERENCE.sub(one, text)


def data_of(obj: Obj) -> dict[str, bytes]:
    """Return the content of a Secret or ConfigMap as bytes."""
    if obj["kind"] == "Secret":
        return {k: base64.b64decode(v or "") for k, v in (obj.get("data") or {}).items()}
    binary = {k: base64.b64decode(v) for k, v in (obj.get("binaryData") or {}).items()}
    return binary | {k: v.encode() for k, v in (obj.get("data") or {}).items()}


def environment(
    pod: Obj, container: Obj, sources: Sources, place: Place, inherited: Mapping[str, str]
) -> dict[str, str]:
    """Return a container's variables: ``inherited`` (the image's), Services, envFrom, then env.

    :raises ConfigProblem: a referenced Secret, ConfigMap or key does not exist.
    :raises Unresolvable: a reference that can never be resolved.
    """
    own: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        own |= _all_of(source, sources)
    for variable in container.get("env") or []:
        name = variable["name"]
        origin = variable.get("valueFrom")
        if origin:
            value = _value(pod, container, origin, sources, place)
            if value is not None:
                own[name] = value
        else:
            own[name] = expand(variable.get("value") or "", dict(sources.services) | own)
    return dict(inherited) | dict(sources.services) | own


def command(container: Obj, env: Mapping[str, str], default: Sequence[str]) -> list[str]:
    """Return the program and its arguments; the image's own command when neither is given.

    As in the images these stand for, that one is no entry point: arguments alone replace it, so
    that ``kubectl run NAME --image=stand-in/python:3 -- python3 -c …`` works.
    """
    words = [*(container.get("command") or []), *(container.get("args") or [])] or default
    return [expand(word, env) for word in words]


def _all_of(source: Mapping[str, Any], sources: Sources) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    kind = "configMapRef" if source.get("configMapRef") else "secretRef"
    reference = source.get(kind) or {}
    obj = _look(sources, kind, reference)
    content = data_of(obj) if obj else {}
    return {
        prefix + name: value.decode("utf-8", "replace")
        for name, value in content.items()
        if _NAME.fullmatch(prefix + name)
    }


def _look(sources: Sources, kind: str, reference: Mapping[str, Any]) -> Obj | None:
    name = reference["name"]
    secret = kind.startswith("secret")
    obj = sources.secret(name) if secret else sources.config_map(name)
    if obj is None and not reference.get("optional"):
        raise ConfigProblem(f'{"secret" if secret else "configmap"} "{name}" not found')
    return obj


def _value(
    pod: Obj, container: Obj, origin: Mapping[str, Any], sources: Sources, place: Place
) -> str | None:
    if origin.get("fieldRef"):
        return field(pod, origin["fieldRef"]["fieldPath"], place)
    if origin.get("resourceFieldRef"):
        return resource(pod, container["name"], origin["resourceFieldRef"], place)
    kind = "configMapKeyRef" if origin.get("configMapKeyRef") else "secretKeyRef"
    reference = origin[kind]
    obj = _look(sources, kind, reference)
    content = data_of(obj) if obj else {}
    if reference["key"] in content:
        return content[reference["key"]].decode("utf-8", "replace")
    if reference.get("optional"):
        return None
    what = "Secret" if kind == "secretKeyRef" else "ConfigMap"
    where = f"{pod['metadata']['namespace']}/{reference['name']}"
    raise ConfigProblem(f"couldn't find key {reference['key']} in {what} {where}")


def service_variables(services: Sequence[Obj], *, own_namespace: bool) -> dict[str, str]:
    """Return the variables for Services: all of the pod's namespace, or ``kubernetes`` alone."""
    found: dict[str, str] = {}
    for service in services:
        spec = service["spec"]
        ip = spec.get("clusterIP")
        ports = spec.get("ports") or []
        is_api = service["metadata"].get("namespace") == "default" and (
            service["metadata"]["name"] == "kubernetes"
        )
        if not ip or ip == "None" or not ports or not (own_namespace or is_api):
            continue
        name = service["metadata"]["name"].upper().replace("-", "_")
        first = ports[0]
        url = f"{(first.get('protocol') or 'TCP').lower()}://{ip}:{first['port']}"
        found |= {f"{name}_SERVICE_HOST": ip, f"{name}_SERVICE_PORT": str(first["port"])}
        found[f"{name}_PORT"] = url
        for port in ports:
            if port.get("name"):
                suffix = port["name"].upper().replace("-", "_")
                found[f"{name}_SERVICE_PORT_{suffix}"] = str(port["port"])
            protocol = port.get("protocol") or "TCP"
            base = f"{name}_PORT_{port['port']}_{protocol}"
            found[base] = f"{protocol.lower()}://{ip}:{port['port']}"
            found[f"{base}_PROTO"] = protocol.lower()
            found[f"{base}_PORT"] = str(port["port"])
            found[f"{base}_ADDR"] = ip
    return found
