"""Where kube-apiserver, kube-controller-manager, kube-scheduler and etcd come from.

In this order: the directory that ``KUBEBUILDER_ASSETS`` names (envtest's layout), the directory in
which ``PGO_BUILD_KUBERNETES=1`` leaves what it built, and, if that is asked for, a build from the
Kubernetes Go module. etcd may also be on PATH (Debian's package). Nothing is downloaded unless the
build is asked for, and then by the Go toolchain alone, whose checksums guard it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

VERSION = "1.34.4"
API_SERVER, CONTROLLERS = "kube-apiserver", "kube-controller-manager"
# envtest's archive has no scheduler; then the stand-in's own one is run.
SCHEDULER = "kube-scheduler"
_NEEDED = (API_SERVER, CONTROLLERS)
_BUILD_S = 3600.0

# Kubernetes' own module replaces these by directories of its repository; seen from outside each is
# a module of its own, v0.X for Kubernetes 1.X.
_STAGING = (
    "api",
    "apiextensions-apiserver",
    "apimachinery",
    "apiserver",
    "cli-runtime",
    "client-go",
    "cloud-provider",
    "cluster-bootstrap",
    "code-generator",
    "component-base",
    "component-helpers",
    "controller-manager",
    "cri-api",
    "cri-client",
    "csi-translation-lib",
    "dynamic-resource-allocation",
    "endpointslice",
    "externaljwt",
    "kms",
    "kube-aggregator",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "metrics",
    "mount-utils",
    "pod-security-admission",
    "sample-apiserver",
    "sample-cli-plugin",
    "sample-controller",
)


class NotHere(Exception):
    """There is no control plane to be had, and why."""


@dataclass(frozen=True)
class Binaries:
    """Programs of one control plane. Without ``scheduler`` somebody else has to schedule."""

    api_server: Path
    controllers: Path
    etcd: Path
    scheduler: Path | None


def cache() -> Path:
    """Return the directory in which a build is kept."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "pytest-pgo-eks" / f"kubernetes-{VERSION}"


def find() -> Binaries:
    """Return the programs, built first where that is asked for and needed.

    :raises NotHere: one is missing; the message says how it can be had.
    """
    given = os.environ.get("KUBEBUILDER_ASSETS")
    places = [Path(given)] if given else []
    places.append(cache())
    found = next((one for one in places if _complete(one)), None)
    if found is None and os.environ.get("PGO_BUILD_KUBERNETES") == "1":
        found = build(cache())
    if found is None:
        looked = ", ".join(str(one) for one in places)
        raise NotHere(
            f"no kube-apiserver and kube-controller-manager in {looked}: name envtest's directory "
            "in KUBEBUILDER_ASSETS, or set PGO_BUILD_KUBERNETES=1 to build them with Go (10 minutes)"
        )
    etcd = found / "etcd" if (found / "etcd").is_file() else _on_path("etcd")
    if etcd is None:
        raise NotHere("no etcd: apt-get install etcd-server, or use an envtest directory with one")
    scheduler = found / SCHEDULER
    return Binaries(
        found / API_SERVER, found / CONTROLLERS, etcd, scheduler if scheduler.is_file() else None
    )


def build(directory: Path) -> Path:
    """Build the three programs of Kubernetes :data:`VERSION` into ``directory`` and return it.

    Ten minutes and 6 GB of Go's cache on two cores the first time, 20 s afterwards.

    :raises NotHere: Go is missing, or it failed; the message has its last line.
    """
    go = _on_path("go")
    if go is None:
        raise NotHere("PGO_BUILD_KUBERNETES=1 needs Go (1.24 or newer) on PATH")
    source = directory / "source"
    source.mkdir(parents=True, exist_ok=True)
    (source / "go.mod").write_text(_module(), "utf-8")
    commands = (API_SERVER, CONTROLLERS, SCHEDULER)
    imports = "".join(f'\t_ "k8s.io/kubernetes/cmd/{one}"\n' for one in commands)
    (source / "tools.go").write_text(
        f"//go:build tools\n\npackage tools\n\nimport (\n{imports})\n", "utf-8"
    )
    for one in commands:
        draft = directory / f".{one}"
        # With -mod=mod Go notes what it needs and no more: tidying would fetch every test's modules.
        target = f"k8s.io/kubernetes/cmd/{one}"
        _run([str(go), "build", "-mod=mod", "-o", str(draft), target], source)
        draft.replace(directory / one)
    return directory


def _module() -> str:
    minor = VERSION.partition(".")[2]
    replaced = "".join(f"\tk8s.io/{one} => k8s.io/{one} v0.{minor}\n" for one in _STAGING)
    return (
        "module realkubernetes\n\ngo 1.24.0\n\n"
        f"require k8s.io/kubernetes v{VERSION}\n\nreplace (\n{replaced})\n"
    )


def _run(command: list[str], where: Path) -> None:
    done = subprocess.run(
        command, cwd=where, capture_output=True, text=True, timeout=_BUILD_S, check=False
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise NotHere(f"{' '.join(command[:3])} failed: {said}")


def _complete(place: Path) -> bool:
    return all((place / one).is_file() for one in _NEEDED)


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None
