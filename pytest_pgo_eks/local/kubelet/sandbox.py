"""A pod's own ground: its place in the network, its namespaces, and the files made for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pytest_pgo_eks.local.kubelet import rootfs
from pytest_pgo_eks.local.kubelet.images import Image
from pytest_pgo_eks.local.kubelet.namespaces import PodNamespaces
from pytest_pgo_eks.local.kubelet.shared import Shared
from pytest_pgo_eks.local.objects import Obj

_HOSTNAME_LENGTH = 63


@dataclass
class Sandbox:
    """What the containers of a pod share while it lives. ``files`` is the pod's own directory."""

    ip: str
    hostname: str
    namespaces: PodNamespaces
    files: Path
    _passwd: dict[tuple[int, int], str] = field(default_factory=dict)

    def etc(self, uid: int, gid: int) -> tuple[dict[str, Path], str]:
        """Return the container's files in ``/etc`` by name, and the home of its user."""
        files = {name: self.files / name for name in ("hosts", "hostname", "resolv.conf")}
        files["nsswitch.conf"] = self.files / "nsswitch.conf"
        passwd, group = self.files / f"passwd-{uid}-{gid}", self.files / f"group-{uid}-{gid}"
        if (uid, gid) not in self._passwd:
            users, groups, home = rootfs.passwd(uid, gid)
            passwd.write_text(users)
            group.write_text(groups)
            self._passwd[uid, gid] = home
        return files | {"passwd": passwd, "group": group}, self._passwd[uid, gid]

    def scripts(self, image: Image) -> dict[str, Path]:
        """Write the image's scripts; return them by the path that a container sees."""
        found = {}
        for target, text in image.scripts.items():
            file = self.files / ("script" + target.replace("/", "-"))
            if not file.exists():
                file.write_text(text)
                file.chmod(0o755)
            found[target] = file
        return found


def hostname_of(pod: Obj) -> str:
    name: str = pod["spec"].get("hostname") or pod["metadata"]["name"]
    return name[:_HOSTNAME_LENGTH].rstrip("-.")


async def make_sandbox(shared: Shared, pod: Obj, files: Path) -> Sandbox:
    """Attach a pod to the network and make its namespaces (about 10 ms).

    :raises Exception: what the network says when it cannot; nothing is left then.
    """
    uid, spec = pod["metadata"]["uid"], pod["spec"]
    if spec.get("hostNetwork"):
        raise NotImplementedError("the stand-in has no hostNetwork")
    hostname = hostname_of(pod)
    place = await shared.network.attach(shared.node.name, uid)
    try:
        _write_files(files, pod, hostname, place.ip, dns_ip=shared.network.dns_ip)
        namespaces = shared.home.new_pod(
            place.netns, hostname, share_processes=bool(spec.get("shareProcessNamespace"))
        )
    except BaseException:
        await shared.network.detach(uid)
        raise
    return Sandbox(place.ip, hostname, namespaces, files)


def _write_files(files: Path, pod: Obj, hostname: str, ip: str, *, dns_ip: str) -> None:
    namespace, spec = pod["metadata"]["namespace"], pod["spec"]
    domain, aliases = spec.get("subdomain") or "", spec.get("hostAliases") or ()
    files.mkdir(parents=True, exist_ok=True)
    texts = {
        "hosts": rootfs.hosts(hostname, ip, domain, namespace, aliases),
        "hostname": hostname + "\n",
        "resolv.conf": rootfs.resolv_conf(namespace, spec, dns_ip),
        "nsswitch.conf": rootfs.NSSWITCH,
    }
    for name, text in texts.items():
        (files / name).write_text(text)
