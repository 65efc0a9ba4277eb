"""What a user changes in an installer: images one by one, pull secrets, the account's annotations."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.pgo.install.rendering import deployment_of
from pytest_pgo_eks.settings import Settings, nearest

Object = dict[str, Any]
_OPERATOR = "operator"
_RELATED = "RELATED_IMAGE_"
# A release that lacks a major version can still run its image.
_MAY_BE_NEW = re.compile(r"POSTGRES_\d+(_GIS_[\d.]+)?")
_OURS = "pytest-pgo-eks-pull"


@dataclass(frozen=True)
class Overrides:
    """``images`` by name: ``operator``, or what follows ``RELATED_IMAGE_``, in capitals.

    ``pull_secrets`` are names in the operator's namespace; ``made_secrets`` the contents of those
    among them that have to be made.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()
    made_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    annotations: Mapping[str, str] = field(default_factory=dict)


def overrides_of(settings: Settings) -> Overrides:
    """Return what the settings ask for.

    :raises UsageProblem: one of them cannot be read.
    """
    given = settings.install
    images = {
        name if name == _OPERATOR else name.upper().removeprefix(_RELATED): image
        for name, image in _pairs("--pgo-images", given.images).items()
    }
    secrets: list[str] = []
    made: dict[str, str] = {}
    for one in _words(given.pull_secrets):
        if "/" not in one and "." not in one:
            secrets.append(one)
            continue
        name = f"{_OURS}-{len(made)}" if made else _OURS
        made[name] = _docker_config(Path(one).expanduser())
        secrets.append(name)
    annotations = _pairs("--pgo-operator-annotations", given.annotations)
    return Overrides(images, tuple(secrets), made, annotations)


def adjusted(objects: Sequence[Object], overrides: Overrides, namespace: str) -> list[Object]:
    """Return the objects with the overrides in them.

    :raises UsageProblem: an image's name that this operator does not know.
    """
    found = copy.deepcopy(list(objects))
    deployment = deployment_of(found)
    pod = deployment["spec"]["template"]["spec"]
    _images(pod, overrides.images)
    if overrides.pull_secrets:
        known = pod.setdefault("imagePullSecrets", [])
        known += [{"name": one} for one in overrides.pull_secrets if {"name": one} not in known]
    account = pod.get("serviceAccountName") or "default"
    for one in found:
        if one["kind"] == "ServiceAccount" and one["metadata"]["name"] == account:
            one["metadata"].setdefault("annotations", {}).update(overrides.annotations)
    secrets = [_secret(name, text, namespace) for name, text in overrides.made_secrets.items()]
    return [*found, *secrets]


def _images(pod: Object, images: Mapping[str, str]) -> None:
    container = next((c for c in pod["containers"] if c["name"] == _OPERATOR), pod["containers"][0])
    environment = container.setdefault("env", [])
    known = {
        one["name"].removeprefix(_RELATED): one
        for one in environment
        if one["name"].startswith(_RELATED)
    }
    for name, image in images.items():
        if name == _OPERATOR:
            container["image"] = image
        elif name in known:
            known[name].pop("valueFrom", None)
            known[name]["value"] = image
        elif _MAY_BE_NEW.fullmatch(name):
            environment.append({"name": _RELATED + name, "value": image})
        else:
            raise UsageProblem(
                f"--pgo-images: this operator knows no image {name.lower()!r}"
                f"{nearest(name.lower(), [_OPERATOR, *map(str.lower, known)])}"
            )


def _secret(name: str, text: str, namespace: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": name, "namespace": namespace},
        "data": {".dockerconfigjson": base64.b64encode(text.encode()).decode()},
    }


def _docker_config(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise UsageProblem(f"--pgo-image-pull-secrets {path}: cannot be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("auths"), dict):
        raise UsageProblem(f"--pgo-image-pull-secrets {path}: there is no 'auths' in it")
    return text


def _words(text: str | None) -> list[str]:
    return [one.strip() for one in (text or "").split(",") if one.strip()]


def _pairs(option: str, text: str | None) -> dict[str, str]:
    return dict(_pair(option, one) for one in _words(text))


def _pair(option: str, text: str) -> tuple[str, str]:
    name, is_pair, value = text.partition("=")
    if not is_pair or not name.strip() or not value.strip():
        raise UsageProblem(f"{option}: {text!r} is not NAME=VALUE")
    return name.strip(), value.strip()


def pull_secret_names(settings: Settings) -> Iterable[str]:
    """Return the names that PostgresClusters need as well, for their own images."""
    return overrides_of(settings).pull_secrets
