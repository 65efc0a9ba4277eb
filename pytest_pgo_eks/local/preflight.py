"""Can this machine run the stand-in? One clear line for each thing in the way, nothing created.

What the kernel allows is tried, not guessed: a throw-away set of namespaces goes through every
step that a cluster needs. Only when a step fails are settings read, to name the one to change.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SUPPORTED_POSTGRES = (15, 16, 17, 18)
UNSHARE = ("unshare", "-U", "-r", "-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc")

# Program -> Debian and Ubuntu package.
_PROGRAMS = {
    "unshare": "util-linux",
    "mount": "mount",
    "ip": "iproute2",
    "nft": "nftables",
    "bwrap": "bubblewrap",
    "bash": "bash",
    # PGO's own scripts in the pods call it.
    "pkill": "procps",
    "pgbackrest": "pgbackrest",
    "pgbouncer": "pgbouncer",
}
_MODULES = ("aiohttp", "asyncpg", "cryptography", "patroni", "psycopg", "yaml", "kubernetes")
_POSTGRES_ROOT = Path("/usr/lib/postgresql")
_TRIAL_S = 30.0

# Each step says its name first, so that the last one said is the one that failed.
_TRIAL = r"""
set -e
step() { echo "step $1" >&2; }
step mount; mount -t tmpfs tmpfs /run; mkdir /run/netns
step netns; ip netns add trial
step bridge; ip link add core type bridge; ip link del core
step veth; ip link add trial0 type veth peer name trial1 netns trial
step forward; ip netns exec trial sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
step nft; nft 'add table ip trial'
step nat; nft 'add chain ip trial nat { type nat hook prerouting priority -100; }'
nft 'add rule ip trial nat ip daddr 10.96.0.1 tcp dport 443 dnat to numgen random mod 2 map { 0 : 10.250.0.1 . 1, 1 : 10.250.0.1 . 2 }'
nft 'add chain ip trial filter { type filter hook forward priority 0; }'
nft 'add rule ip trial filter ct state established,related accept'
nft 'add rule ip trial filter counter reject'
step pod; bwrap --unshare-user --uid 26 --gid 26 --unshare-pid --ro-bind / / --proc /proc --dev /dev true
step done
"""


@dataclass(frozen=True)
class Problem:
    """One thing in the way, and what removes it (a command or a setting)."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


@dataclass(frozen=True)
class Host:
    """What an explanation of a refused namespace may rest on. None: the setting does not exist."""

    root: bool
    contained: bool
    seccomp: bool
    # "user", "net" …: how many namespaces of the kind there may be; absent: the kernel has none.
    most: Mapping[str, int]
    unprivileged_clone: int | None
    apparmor_restricts: int | None


def search_path() -> str:
    """Return PATH with the system directories that an ordinary user's often lacks."""
    given = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(os.pathsep)
    extra = [d for d in ("/usr/sbin", "/sbin") if d not in given]
    return os.pathsep.join([*given, *extra])


def postgres_versions() -> list[int]:
    """Return the supported major versions whose server is installed, in ascending order."""
    return [
        v for v in SUPPORTED_POSTGRES if (_POSTGRES_ROOT / str(v) / "bin" / "postgres").exists()
    ]


def check(postgres_version: int | None = None) -> list[Problem]:
    """Return everything in the way, cheapest checks first; the trial only when all else is well."""
    if not sys.platform.startswith("linux"):
        return [
            Problem(
                "the stand-in cluster needs Linux (namespaces)",
                "use --cluster=kind, k3s, kubeconfig or eks here",
            )
        ]
    found = [*_packages(postgres_version), *_modules(), *_postgres(postgres_version)]
    return found or _namespaces()


def _packages(postgres_version: int | None) -> list[Problem]:
    """Name everything that the distribution has for us in one command."""
    path = search_path()
    missing = {pkg for name, pkg in _PROGRAMS.items() if not shutil.which(name, path=path)}
    if postgres_version is None and not postgres_versions():
        missing.add("postgresql")
    if not missing:
        return []
    packages = sorted(missing)
    return [
        Problem(
            f"missing system packages: {', '.join(packages)}",
            f"apt-get install --no-install-recommends {' '.join(packages)}",
        )
    ]


def _modules() -> list[Problem]:
    missing = [name for name in _MODULES if importlib.util.find_spec(name) is None]
    if not missing:
        return []
    return [
        Problem(
            f"missing Python packages: {', '.join(missing)}",
            f"{sys.executable} -m pip install 'pytest-pgo-eks[local]'",
        )
    ]


def _postgres(version: int | None) -> list[Problem]:
    installed = postgres_versions()
    supported = ", ".join(map(str, SUPPORTED_POSTGRES))
    if version is not None and version not in SUPPORTED_POSTGRES:
        return [Problem(f"PostgreSQL {version} is not supported", f"use one of {supported}")]
    if version is None and not installed:
        return []  # one of the missing packages
    wanted = version or installed[-1]
    if wanted not in installed:
        have = f" (installed: {', '.join(map(str, installed))})" if installed else ""
        return [
            Problem(
                f"PostgreSQL {wanted} is not installed{have}",
                f"apt-get install --no-install-recommends postgresql-{wanted}, "
                "from apt.postgresql.org where the distribution has none",
            )
        ]
    server = _POSTGRES_ROOT / str(wanted) / "bin" / "postgres"
    if b"libssl.so" not in server.read_bytes():
        return [Problem(f"{server} was built without TLS", "install the distribution's package")]
    return []


def _namespaces() -> list[Problem]:
    environment = {**os.environ, "PATH": search_path(), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [*UNSHARE, "sh", "-c", _TRIAL],
            capture_output=True,
            text=True,
            timeout=_TRIAL_S,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return [Problem(f"a trial of namespaces took over {_TRIAL_S:.0f} s", "is the host stuck?")]
    steps = re.findall(r"^step (\w+)$", done.stderr, re.MULTILINE)
    if done.returncode == 0 and steps and steps[-1] == "done":
        return []
    said = [line for line in done.stderr.splitlines() if line and not line.startswith("step ")]
    return [explain(steps[-1] if steps else "unshare", said[-1] if said else "", host())]


def host() -> Host:
    """Read the settings that decide about namespaces."""
    status = Path("/proc/self/status").read_text()
    contained = any(Path(p).exists() for p in ("/.dockerenv", "/run/.containerenv"))
    return Host(
        root=os.geteuid() == 0,
        contained=contained or "container" in os.environ,
        seccomp=bool(re.search(r"^Seccomp:\s*[12]$", status, re.MULTILINE)),
        most={
            kind: found
            for kind in ("user", "net", "mnt", "pid", "uts", "ipc")
            if (found := _sysctl(f"user/max_{kind}_namespaces")) is not None
        },
        unprivileged_clone=_sysctl("kernel/unprivileged_userns_clone"),
        apparmor_restricts=_sysctl("kernel/apparmor_restrict_unprivileged_userns"),
    )


def _sysctl(name: str) -> int | None:
    try:
        return int(Path("/proc/sys", name).read_text())
    except (OSError, ValueError):
        return None


def explain(step: str, said: str, on: Host) -> Problem:
    """Name the setting, module or container flag that stands behind a failed step of the trial."""
    detail = f" ({said})" if said else ""
    if step in {"nft", "nat"}:
        modules = (
            "nf_tables" if step == "nft" else "nft_chain_nat nft_ct nft_numgen nft_reject_ipv4"
        )
        return Problem(
            f"the kernel has no nftables for us{detail}",
            f"modprobe {modules} (as root on the host), or a kernel with CONFIG_NF_TABLES and "
            "CONFIG_NFT_NAT",
        )
    if step in {"bridge", "veth"} and "not supported" in said + " not supported" * (
        "Unknown device type" in said
    ):
        return Problem(f"the kernel has no {step} devices{detail}", f"modprobe {step} (as root)")
    what = f"this host forbids the namespaces that pods are made of{detail}"
    closed = [f"user.max_{kind}_namespaces=15000" for kind, most in on.most.items() if most == 0]
    if closed:
        return Problem(what, f"sysctl -w {' '.join(closed)} (as root)")
    if "No space left" in said:
        return Problem(
            what,
            "a limit is reached: raise user.max_user_namespaces, user.max_net_namespaces and their "
            "like with sysctl -w, in the container or sandbox around us too",
        )
    if not on.root and on.unprivileged_clone == 0:
        return Problem(what, "sysctl -w kernel.unprivileged_userns_clone=1 (as root)")
    if on.contained or on.seccomp:
        return Problem(
            what,
            "start the container with --privileged, or with --cap-add SYS_ADMIN --cap-add NET_ADMIN "
            "--security-opt seccomp=unconfined --security-opt apparmor=unconfined "
            "--security-opt systempaths=unconfined",
        )
    if on.apparmor_restricts == 1:
        return Problem(what, "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (as root)")
    return Problem(
        what,
        f"step {step!r} failed: a kernel with user, network, mount and pid namespaces is needed; "
        "else use --cluster=kind, k3s, kubeconfig or eks",
    )
