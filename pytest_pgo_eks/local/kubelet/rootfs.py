"""What a container sees: the arguments with which bubblewrap builds its root file system."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_pgo_eks.local.kubelet.images import USERS, Image, User

# What an image of a small distribution has in /etc, as far as programs read it. The host's
# configuration of PostgreSQL, PgBouncer and pgBackRest is not among it: PGO mounts its own.
_ETC = (
    "alternatives", "bash.bashrc", "ca-certificates", "ca-certificates.conf", "crypto-policies",
    "debian_version", "gai.conf", "gss", "host.conf", "inputrc", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "locale.alias", "lsb-release", "mime.types", "networks", "os-release", "pki",
    "profile", "protocols", "redhat-release", "rpc", "services", "shells", "ssl", "system-release",
    "terminfo",
)  # fmt: skip
# Where the two directories behind the links in /etc are: the host's files and the pod's own. Each
# bind mount costs bubblewrap a look at the whole mount table: with one for every file of /etc and
# every directory of /usr a start took 8.9 ms of CPU, now it takes 5.
_HOST_ETC, _POD_ETC = "/run/host-etc", "/run/pod-etc"
_FILES = {"hosts", "hostname", "resolv.conf"}  # mounted one by one on Kubernetes, too
NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"
_PRELOADED = "/usr/lib64/libnss_wrapper.so"
_COPY_S = 20.0
_LIB64 = Path("/usr/lib64")
# A real /usr/lib64 of a Fedora-like host is full of libraries and is shown as it is.
_FEW_LINKS = 16


@dataclass(frozen=True)
class Mount:
    """A volume's place in a container: a file or directory of the host at an absolute path."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class View:
    """Everything that decides what one container sees.

    ``host_etc`` is what ``copy_host_etc`` made. ``etc`` holds the pod's own files, all in one
    directory, by their names in ``/etc``; ``scripts`` are by their absolute paths.
    """

    image: Image
    mounts: tuple[Mount, ...]
    host_etc: Path
    etc: dict[str, Path]
    scripts: dict[str, Path]
    termination_log: tuple[Path, str]
    read_only_root: bool
    workdir: str
    home: str

    def arguments(self) -> list[str]:
        """Return bubblewrap's arguments for the file system, in the order it must apply them."""
        taken = {mount.target.rstrip("/") for mount in self.mounts}
        args = self._directories()
        args += [*_programs(), *self._etc(), "--proc", "/proc", "--dev", "/dev"]
        for path in ("/tmp", "/var/tmp"):  # noqa: S108 - a path inside the container
            if path not in taken:
                args += ["--perms", "1777", "--tmpfs", path]
        if self.home not in {"/", "/nonexistent"}:
            args += ["--perms", "0700", "--dir", self.home]
        for target, source in self.scripts.items():
            args += ["--ro-bind", str(source), target]
        # A parent first, so that a mount inside another is not hidden by it: the harness itself
        # may be installed below /tmp.
        ours = [Mount(path, str(path), read_only=True) for path in self.image.prefixes]
        mounts = [*(mount for mount in ours if mount.target not in taken), *self.mounts]
        for mount in sorted(mounts, key=lambda mount: mount.target.rstrip("/").count("/")):
            args += ["--ro-bind" if mount.read_only else "--bind", str(mount.source), mount.target]
        log, where = self.termination_log
        args += ["--bind", str(log), where]
        if self._must_make(self.workdir):
            args += ["--dir", self.workdir]
        if self.read_only_root:
            args += ["--remount-ro", "/"]
        return [*args, "--chdir", self.workdir]

    def _directories(self) -> list[str]:
        """Make the directories above everything, which bubblewrap by itself makes as 0700."""
        targets = [mount.target for mount in self.mounts]
        below = [*targets, *self.scripts, *map(str, self.image.prefixes), self.home]
        wanted = {"/usr", "/etc", "/run", "/var/lib", "/var/run", "/home", "/opt", "/mnt"}
        wanted |= {str(parent) for path in below for parent in Path(path).parents}
        # What lies inside a mount is not ours to make.
        hidden = ("/tmp", "/dev", "/proc", *targets)  # noqa: S108
        ours = [p for p in wanted if not any(Path(p).is_relative_to(h) for h in hidden)]
        ours += [str(parent) for path in ours for parent in Path(path).parents]
        return [arg for path in sorted({*ours} - {"/"}) for arg in ("--dir", path)]

    def _etc(self) -> list[str]:
        (ours,) = {str(file.parent) for file in self.etc.values()}
        args = ["--ro-bind", str(self.host_etc), _HOST_ETC, "--ro-bind", ours, _POD_ETC]
        links = {name: f"{_HOST_ETC}/{name}" for name in _ETC if (self.host_etc / name).exists()}
        links |= {name: f"{_POD_ETC}/{file.name}" for name, file in self.etc.items()}
        for name, target in links.items():
            if name in _FILES:
                args += ["--ro-bind", str(self.etc[name]), f"/etc/{name}"]
            else:
                # Relative: bubblewrap follows it itself where a volume is mounted below it.
                args += ["--symlink", f"..{target}", f"/etc/{name}"]
        return args

    def _must_make(self, workdir: str) -> bool:
        # As containerd does, but only where there is no host directory that we must not touch.
        seen = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/dev", "/tmp")  # noqa: S108
        below = [*seen, *(mount.target for mount in self.mounts), *map(str, self.image.prefixes)]
        inside = any(Path(workdir).is_relative_to(path) for path in below)
        return workdir != "/" and not inside


def copy_host_etc(directory: Path) -> None:
    """Copy what containers see of the host's ``/etc``: about 700 small files, none of them a key."""
    (directory / "ssl").mkdir(parents=True, exist_ok=True, mode=0o755)
    public = [path for path in _children(Path("/etc/ssl")) if path.name != "private"]
    others = [Path("/etc", name) for name in _ETC if name != "ssl"]
    # cp takes a tenth of the time of shutil. What this user may not read stays out.
    for sources, target in ((others, directory), (public, directory / "ssl")):
        there = [str(source) for source in sources if source.exists()]
        if there:
            words = ["cp", "-r", "-P", "-H", "--preserve=mode", "--", *there, str(target)]
            subprocess.run(words, check=False, capture_output=True, timeout=_COPY_S)


def _children(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _programs() -> list[str]:
    args: list[str] = []
    if _lib64_is_links():
        args += ["--ro-bind", "/usr", "/usr", "--tmpfs", "/usr/lib64", *_lib64()]
        args += ["--remount-ro", "/usr/lib64"]
    else:
        args += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        args += _show(Path("/", name))
    return args


def _show(path: Path) -> list[str]:
    if path.is_symlink():
        return ["--symlink", str(path.readlink()), str(path)]
    return ["--ro-bind", str(path), str(path)] if path.is_dir() else []


def _lib64_is_links() -> bool:
    if _LIB64.is_symlink() or not _LIB64.is_dir():
        return False
    links = list(_LIB64.iterdir())
    return len(links) <= _FEW_LINKS and all(link.is_symlink() for link in links)


def _lib64() -> list[str]:
    """Show ``/usr/lib64`` with the library that PGO has preloaded into every process.

    Debian keeps the library elsewhere, and without it the loader complains on the standard error
    of every program. ``/etc/passwd`` knows UID 26 here, so a library of glibc that does nothing
    stands in for it where it is not installed.
    """
    links = sorted(_LIB64.iterdir())
    args = [arg for link in links for arg in ("--symlink", str(link.readlink()), str(link))]
    harmless = ("libnss_wrapper.so", "libpthread.so.0", "libdl.so.2", "libc.so.6")
    found = (
        library
        for name in harmless
        for library in (*Path("/usr/lib").glob(f"*-linux-gnu/{name}"), Path("/usr/lib", name))
        if library.exists()
    )
    library = next(found, None)
    known = any(str(link) == _PRELOADED for link in links)
    return args if library is None or known else [*args, "--symlink", str(library), _PRELOADED]


def passwd(uid: int, gid: int) -> tuple[str, str, str]:
    """Return ``/etc/passwd``, ``/etc/group`` and the home of ``uid``, which is always known."""
    users = list(USERS)
    me = next((user for user in users if user.uid == uid), None)
    if me is None:
        me = User("user", uid, gid, "/")
        users.append(me)
    lines = (f"{u.name}:x:{u.uid}:{u.gid}:{u.name}:{u.home}:/bin/bash\n" for u in users)
    groups = {u.gid: u.name for u in users}
    groups.setdefault(gid, "group")
    return "".join(lines), "".join(f"{n}:x:{g}:\n" for g, n in sorted(groups.items())), me.home


def search_path(image: Image) -> str:
    return os.pathsep.join(image.path)


def hosts(hostname: str, ip: str, subdomain: str, namespace: str, aliases: Sequence[object]) -> str:
    """Return ``/etc/hosts`` as a kubelet writes it."""
    full = f"{hostname}.{subdomain}.{namespace}.svc.cluster.local\t" if subdomain else ""
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        f"{ip}\t{full}{hostname}",
    ]
    if aliases:
        lines += ["", "# Entries added by HostAliases."]
    for alias in aliases:
        if isinstance(alias, dict):
            names = "\t".join(alias.get("hostnames") or [])
            lines.append(f"{alias['ip']}\t{names}")
    return "\n".join(lines) + "\n"


def resolv_conf(namespace: str, spec: dict[str, object], dns_ip: str) -> str:
    """Return ``/etc/resolv.conf`` for a pod's dnsPolicy and dnsConfig.

    ``Default`` means the node's own resolver, which here is the cluster's without its domains:
    nothing in this network leads further.
    """
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    servers: list[str] = [] if policy == "None" else [dns_ip]
    search: list[str] = []
    options: list[str] = []
    if str(policy).startswith("ClusterFirst"):
        search = [f"{namespace}.svc.cluster.local", "svc.cluster.local", "cluster.local"]
        options = ["ndots:5"]
    config = spec.get("dnsConfig")
    if isinstance(config, dict):
        servers += [s for s in config.get("nameservers") or [] if s not in servers]
        search += [s for s in config.get("searches") or [] if s not in search]
        for option in config.get("options") or []:
            name, value = option["name"], option.get("value")
            options = [o for o in options if o.partition(":")[0] != name]
            options.append(f"{name}:{value}" if value is not None else name)
    lines = [f"search {' '.join(search)}"] if search else []
    lines += [f"nameserver {server}" for server in servers]
    lines += [f"options {' '.join(options)}"] if options else []
    return "\n".join(lines) + "\n"
