"""What kind's nodes are made of: images by digest, zones, registry mirrors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from pytest_pgo_eks.clusters import programs
from pytest_pgo_eks.clusters.detecting import ZONE
from pytest_pgo_eks.errors import UsageProblem

ZONES = ("zone-a", "zone-b", "zone-c")
_MIRRORED = """[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d"
"""
_REPOSITORY = "docker.io/kindest/node"
# An image is made for one release of kind, and its tag may be pushed again for the next one. From
# the release notes of v0.30.0 and v0.33.0.
_DIGESTS: Mapping[tuple[int, ...], Mapping[str, str]] = {
    (0, 30): {
        "1.34.0": "7416a61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5a",
        "1.33.4": "25a6018e48dfcaee478f4a59af81157a437f15e6e140bf103f85a2e7cd0cbbf2",
        "1.32.8": "abd489f042d2b644e2d033f5c2d900bc707798d075e8186cb65e3f1367a9d5a1",
        "1.31.12": "0f5cc49c5e73c0c2bb6e2df56e7df189240d83cf94edfa30946482eb08ec57d2",
    },
    (0, 33): {
        "1.37.0": "a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5",
        "1.36.4": "099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed",
        "1.35.8": "07b2536e30b803ed61d1677a79df6115f798ce64c80f9e22f6ed45afd09323c0",
        "1.34.11": "44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d",
    },
}


def node_image(kind: tuple[int, ...], kubernetes: str | None, named: str | None) -> str | None:
    """Return the node image to ask kind for; None leaves kind its own, which it pins by digest.

    :raises UsageProblem: no digest is known for that Kubernetes with this kind.
    """
    if named or kubernetes is None:
        return named
    known = _DIGESTS.get(kind[:2], {})
    wanted = kubernetes.removeprefix("v")
    for version, digest in known.items():
        if wanted in (version, version.rpartition(".")[0]):
            return f"{_REPOSITORY}:v{version}@sha256:{digest}"
    release = programs.dotted(kind)
    raise UsageProblem(
        f"--pgo-kubernetes-version={kubernetes}: no node image of that version is known for kind "
        f"{release} ({', '.join(known) or 'none is known for it'}); name one from the release notes of "
        f"kind {release} with --pgo-kind-image=kindest/node:v…@sha256:…"
    )


def mirrors(text: str | None) -> dict[str, str]:
    """Return registry → mirror of ``docker.io=http://mirror:5000,quay.io=…``.

    :raises UsageProblem: an entry is none.
    """
    found = {}
    for entry in (text or "").split(","):
        registry, _, url = entry.strip().partition("=")
        if not entry.strip():
            continue
        if not registry or urlsplit(url).scheme not in ("http", "https"):
            raise UsageProblem(
                f"--pgo-registry-mirror: {entry.strip()!r} is not of the form docker.io=http://host:port"
            )
        found[registry] = url
    return found


def configuration(folder: Path, mirrored: Mapping[str, str]) -> Path:
    """Write kind's configuration into ``folder``: one control plane, three workers in three zones.

    Mirrors become files that every node mounts, which is how containerd 2 is told.
    """
    mounts = []
    for registry, url in mirrored.items():
        place = folder / "certs.d" / registry
        place.mkdir(parents=True, exist_ok=True)
        host = f'[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'
        (place / "hosts.toml").write_text(host, "utf-8")
    if mirrored:
        mounts = [
            {
                "hostPath": str(folder / "certs.d"),
                "containerPath": "/etc/containerd/certs.d",
                "readOnly": True,
            }
        ]
    nodes = [{"role": "control-plane", "extraMounts": mounts}]
    nodes += [
        {"role": "worker", "labels": {ZONE: zone}, "extraMounts": mounts}  # type: ignore[dict-item]
        for zone in ZONES
    ]
    document = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": nodes}
    if mirrored:
        document["containerdConfigPatches"] = [_MIRRORED]
    path = folder / "kind.yaml"
    # Anchors would be read by kind, and by nobody else who looks at the file.
    text = yaml.dump(document, Dumper=_Plain, sort_keys=False)
    path.write_text(text, "utf-8")
    return path


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        del data
        return True
