"""From a source to the objects to apply: by kubectl's kustomize, by helm, or as they are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.pgo import names
from pytest_pgo_eks.pgo.install.sources import Source

Object = dict[str, Any]
Run = Callable[[Sequence[str]], str]
_RENDER_S = 120.0
_DEFAULT_NAMESPACE = "postgres-operator"


def render(
    source: Source, *, namespace: str, scope: str, scratch: Path, run: Run | None = None
) -> list[Object]:
    """Return the objects of an operator that lives in ``namespace``, CRDs included.

    ``scope`` is ``cluster`` or ``namespace``; a rendered manifest has decided both by itself.
    ``run`` runs a program and returns what it prints.

    :raises UsageProblem: the program is missing or failed, or what came out is no operator.
    """
    run = run or _run
    if source.layout == "kustomize":
        found = _kustomized(source, namespace, scope, scratch, run)
    elif source.layout == "chart":
        found = _charted(source, namespace, scope, run)
    elif source.layout == "stand-in":
        program = [sys.executable, "-m", "pytest_pgo_eks.local", "manifests"]
        found = _parsed(source, run([*program, "--operator-version", source.place]))
    else:
        found = _parsed(source, source.path.read_text("utf-8"))
    _require_operator(source, found)
    return found


def render_checked(source: Source, **options: Any) -> list[Object]:
    """Render, and refuse a manifest whose operator would live elsewhere than the run expects.

    :raises UsageProblem: as :func:`render`, and for another namespace.
    """
    found = render(source, **options)
    place = deployment_of(found)["metadata"].get("namespace") or "default"
    if place != options["namespace"]:
        raise UsageProblem(
            f"--pgo-install {source.given}: its operator lives in namespace {place!r}, the run uses "
            f"{options['namespace']!r}; say --pgo-namespace={place}"
        )
    return found


def deployment_of(objects: Sequence[Object]) -> Object:
    """Return the operator's Deployment."""
    found = [one for one in objects if one.get("kind") == "Deployment"]
    labelled = [one for one in found if names.CONTROL_PLANE in names.labels(one)]
    return (labelled or found)[0]


def _kustomized(
    source: Source, namespace: str, scope: str, scratch: Path, run: Run
) -> list[Object]:
    parts = ["namespace", "default" if scope == "cluster" else "singlenamespace"]
    for part in parts:
        if not source.part(part).is_dir():
            raise UsageProblem(
                f"--pgo-install {source.given}: this release has no {source.parts}/{part}"
                + ("; say --pgo-install-scope=cluster" if part == "singlenamespace" else "")
            )
    found: list[Object] = []
    for part in parts:
        folder = source.part(part)
        if part != "namespace" and namespace != _DEFAULT_NAMESPACE:
            folder = _overlay(folder, namespace, scratch / f"overlay-{part}")
        found += _parsed(source, run(["kubectl", "kustomize", str(folder)]))
    for one in found:
        if one["kind"] == "Namespace":
            one["metadata"]["name"] = namespace
    return found


def _overlay(folder: Path, namespace: str, overlay: Path) -> Path:
    """Put the installer into another namespace; kustomize knows every place where it stands."""
    overlay.mkdir(parents=True)
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        # An absolute path is refused there.
        "resources": [os.path.relpath(folder, overlay.resolve())],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(content), "utf-8")
    return overlay


def _charted(source: Source, namespace: str, scope: str, run: Run) -> list[Object]:
    chart, version = _chart_and_version(source.place)
    command = ["helm", "template", "pgo", chart, "--include-crds", "--namespace", namespace]
    command += ["--version", version] if version else []
    command += ["--set", f"singleNamespace={'true' if scope == 'namespace' else 'false'}"]
    found = _parsed(source, run(command))
    for one in found:
        # helm leaves the namespace to whoever applies.
        if one["kind"] not in _CLUSTER_WIDE:
            one["metadata"].setdefault("namespace", namespace)
    made: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    return [made, *found]


_CLUSTER_WIDE = {
    "Namespace",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "PriorityClass",
    "StorageClass",
}


def _chart_and_version(place: str) -> tuple[str, str | None]:
    """Take ``oci://host/chart:6.0.3`` apart; a port belongs to the host."""
    if not place.startswith("oci://"):
        return place, None
    match = re.fullmatch(r"(oci://.+/[^/:]+)(?::([^/:]+))?", place)
    return (match[1], match[2]) if match else (place, None)


def _parsed(source: Source, text: str) -> list[Object]:
    try:
        documents = [one for one in yaml.safe_load_all(text) if one]
    except yaml.YAMLError as error:
        raise UsageProblem(
            f"--pgo-install {source.given}: not YAML: {str(error).splitlines()[0]}"
        ) from error
    found: list[Object] = []
    for one in documents:
        if not isinstance(one, dict) or not one.get("kind"):
            raise UsageProblem(f"--pgo-install {source.given}: a document in it is no object")
        found += one.get("items") or [] if one["kind"] == "List" else [one]
    return found


def _require_operator(source: Source, objects: Sequence[Object]) -> None:
    kinds = {one["kind"] for one in objects}
    if "Deployment" not in kinds:
        raise UsageProblem(f"--pgo-install {source.given}: there is no Deployment in it")
    crds = {one["metadata"]["name"] for one in objects if one["kind"] == "CustomResourceDefinition"}
    if names.CRD not in crds:
        raise UsageProblem(f"--pgo-install {source.given}: it does not define {names.CRD}")


def _run(command: Sequence[str]) -> str:
    program = command[0]
    if shutil.which(program) is None:
        raise UsageProblem(f"--pgo-install needs {program} on PATH")
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_RENDER_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UsageProblem(
            f"--pgo-install: {' '.join(command[:3])} did not end in {_RENDER_S:.0f} s"
        ) from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise UsageProblem(f"--pgo-install: {' '.join(command[:3])} failed: {said[-1].strip()}")
    return done.stdout
