"""A tree like the operator's repository, with the stand-in operator's manifests in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks.local.operator.manifests import manifests

KUSTOMIZATION = "kustomization.yaml"


def write_repository(root: Path, version: str = "6.0", parts: str = "config") -> Path:
    """Write ``config/namespace``, ``config/default`` and ``config/singlenamespace`` below ``root``."""
    namespace, *rest = manifests(version)
    _write(root / parts / "namespace", {"namespace": namespace})
    named = {f"{one['kind'].lower()}-{one['metadata']['name']}": one for one in rest}
    _write(root / parts / "default", named)
    _write(root / parts / "singlenamespace", named)
    return root


def whole(version: str = "6.0") -> str:
    """Return everything as one rendered manifest."""
    return str(yaml.safe_dump_all(manifests(version)))


def _write(folder: Path, objects: dict[str, dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    for name, one in objects.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(one), "utf-8")
    content = {"kind": "Kustomization", "resources": [f"{name}.yaml" for name in objects]}
    if folder.name != "namespace":
        content["namespace"] = "postgres-operator"
    (folder / KUSTOMIZATION).write_text(yaml.safe_dump(content), "utf-8")
