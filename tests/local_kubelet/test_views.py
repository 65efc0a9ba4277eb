"""What images stand for, and how a container's file system is put together."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pytest_pgo_eks.local.kubelet import backup_entry, images, rootfs
from pytest_pgo_eks.local.kubelet.channels import status
from pytest_pgo_eks.local.kubelet.environment import ConfigProblem
from pytest_pgo_eks.local.kubelet.images import ImageProblem, find_image
from pytest_pgo_eks.local.kubelet.rootfs import Mount, View
from pytest_pgo_eks.local.kubelet.users import wanted_user


def test_images_are_found_behind_any_registry() -> None:
    assert find_image("stand-in/python:3").user.uid == 0
    assert find_image("localhost:5000/mirror/stand-in/python:3").name.endswith("python:3")
    assert find_image("stand-in/operator:6.0@sha256:abc").user.uid == 2


@pytest.mark.parametrize(
    "name", ["nginx", "postgres:17", "stand-in/unknown:1", "other/python:3", ""]
)
def test_unknown_images_say_what_is_known(name: str) -> None:
    with pytest.raises(ImageProblem, match="stand-in/postgres"):
        find_image(name)


def test_a_missing_postgres_says_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Path("/usr/lib/postgresql/16/bin")
    monkeypatch.setattr(images, "postgres_bin", lambda major: there if major == "16" else None)
    found = find_image("stand-in/postgres:16")
    assert found.path[:2] == (str(there), str(Path(sys.executable).parent))
    assert (found.user.uid, found.user.gid) == (26, 26)
    with pytest.raises(ImageProblem, match="installed: 16"):
        find_image("stand-in/postgres:99")


def view(**changes: Any) -> View:
    fields: dict[str, Any] = {
        "image": find_image("stand-in/python:3"),
        "mounts": (),
        "host_etc": Path("/state/host-etc"),
        "etc": {"passwd": Path("/state/pod/passwd-1")},
        "scripts": {},
        "termination_log": (Path("/state/log"), "/dev/termination-log"),
        "read_only_root": False,
        "workdir": "/",
        "home": "/root",
    }
    return View(**(fields | changes))


def binds(arguments: list[str]) -> dict[str, tuple[str, str]]:
    """Return target -> (kind, source) of the binds, and check that no target comes twice."""
    found: dict[str, tuple[str, str]] = {}
    for at, word in enumerate(arguments):
        if word in {"--bind", "--ro-bind"}:
            source, target = arguments[at + 1 : at + 3]
            assert target not in found
            found[target] = (word, source)
    return found


def test_the_host_is_read_only_and_its_databases_are_not_shown() -> None:
    found = binds(view().arguments())
    writable = {target for target, (kind, _) in found.items() if kind == "--bind"}
    assert writable == {"/dev/termination-log"}
    assert found["/usr"] == ("--ro-bind", "/usr")
    assert found["/run/pod-etc"] == ("--ro-bind", "/state/pod")
    assert not {"/", "/etc", "/root", "/home", "/var"} & found.keys()
    arguments = view().arguments()
    assert arguments[arguments.index("/etc/passwd") - 1] == "../run/pod-etc/passwd-1"


def test_of_the_hosts_etc_only_what_programs_need_is_copied(tmp_path: Path) -> None:
    rootfs.copy_host_etc(tmp_path / "etc")
    names = {path.name for path in (tmp_path / "etc").iterdir()}
    assert {"services", "ld.so.cache"} <= names
    assert not {"shadow", "passwd", "postgresql", "pgbouncer", "pgbackrest.conf"} & names
    assert not list((tmp_path / "etc").glob("**/private"))
    assert not list((tmp_path / "etc").glob("**/*.key"))


def test_mounts_come_parents_first_and_replace_tmp() -> None:
    mounts = (
        Mount(Path("/v/inner"), "/pgdata/inner", read_only=True),
        Mount(Path("/v/data"), "/pgdata"),
        Mount(Path("/v/tmp"), "/tmp"),
    )
    arguments = view(mounts=mounts).arguments()
    found = binds(arguments)
    assert found["/pgdata"] == ("--bind", "/v/data")
    assert found["/pgdata/inner"] == ("--ro-bind", "/v/inner")
    assert arguments.index("/pgdata") < arguments.index("/pgdata/inner")
    assert ("--tmpfs", "/tmp") not in pairwise(arguments)
    assert ("--tmpfs", "/tmp") in pairwise(view().arguments())


def test_the_root_becomes_read_only_after_everything_is_in_it() -> None:
    arguments = view(read_only_root=True).arguments()
    assert arguments[-4:] == ["--remount-ro", "/", "--chdir", "/"]
    assert ("--remount-ro", "/") not in pairwise(view().arguments())


def test_a_working_directory_is_made_only_where_the_root_is_ours() -> None:
    def made(path: str, *mounts: Mount) -> bool:
        arguments = view(workdir=path, mounts=mounts).arguments()
        return ("--dir", path) in pairwise(arguments)

    assert made("/of-mine")
    assert not made("/usr/share/x")
    assert not made("/data/x", Mount(Path("/v"), "/data"))


def test_a_preloaded_library_is_always_there() -> None:
    arguments = view().arguments()
    lib64 = Path("/usr/lib64")
    if lib64.is_dir() and not lib64.is_symlink() and len(list(lib64.iterdir())) < 16:
        at = arguments.index("/usr/lib64/libnss_wrapper.so")
        assert Path(arguments[at - 1]).exists()


def test_directories_above_mounts_are_open_as_in_an_image() -> None:
    mounts = (Mount(Path("/v"), "/etc/pgbackrest/conf.d"), Mount(Path("/w"), "/tmp"))
    arguments = view(mounts=mounts, scripts={"/opt/crunchy/bin/x": Path("/s")}).arguments()
    made = [b for a, b in pairwise(arguments) if a == "--dir"]
    assert made.index("/etc") < made.index("/etc/pgbackrest")
    assert "/opt/crunchy/bin" in made
    assert not any(path.startswith("/tmp") for path in made)
    assert arguments.index("/etc/pgbackrest") < arguments.index("/etc/pgbackrest/conf.d")


def test_everybody_has_a_name() -> None:
    passwd, group, home = rootfs.passwd(26, 26)
    assert "postgres:x:26:26:" in passwd
    assert "postgres:x:26:" in group
    assert home == "/var/lib/pgsql"
    passwd, group, _ = rootfs.passwd(4711, 99)
    assert "user:x:4711:99:" in passwd
    assert ":x:99:" in group


def test_resolv_conf() -> None:
    first = rootfs.resolv_conf("ns", {}, "10.96.0.10")
    assert first == (
        "search ns.svc.cluster.local svc.cluster.local cluster.local\n"
        "nameserver 10.96.0.10\noptions ndots:5\n"
    )
    config = {
        "nameservers": ["1.1.1.1"],
        "searches": ["x"],
        "options": [{"name": "ndots", "value": "2"}],
    }
    alone = rootfs.resolv_conf("ns", {"dnsPolicy": "None", "dnsConfig": config}, "10.96.0.10")
    assert alone == "search x\nnameserver 1.1.1.1\noptions ndots:2\n"
    added = rootfs.resolv_conf("ns", {"dnsConfig": config}, "10.96.0.10")
    assert "cluster.local x\n" in added
    assert added.endswith("options ndots:2\n")


def test_hosts() -> None:
    alias = {"ip": "10.1.1.1", "hostnames": ["a", "b"]}
    text = rootfs.hosts("hippo-0", "10.244.1.7", "hippo-pods", "ns", [alias])
    assert "10.244.1.7\thippo-0.hippo-pods.ns.svc.cluster.local\thippo-0\n" in text
    assert "10.1.1.1\ta\tb\n" in text


def user(
    pod: dict[str, Any], container: dict[str, Any], image: str = "python:3"
) -> tuple[int, int]:
    obj = {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {"securityContext": pod},
    }
    return wanted_user(
        obj, {"name": "c", "securityContext": container}, find_image(f"stand-in/{image}")
    )


def test_users() -> None:
    assert user({}, {}) == (0, 0)
    assert user({"runAsUser": 5, "runAsGroup": 6}, {"runAsUser": 7}) == (7, 6)
    assert user({"runAsUser": 5}, {}) == (5, 0)
    assert user({}, {"runAsNonRoot": True}, "operator:1") == (2, 2)
    with pytest.raises(ConfigProblem, match="image will run as root"):
        user({"runAsNonRoot": True}, {})
    with pytest.raises(ConfigProblem, match="breaks non-root policy"):
        user({"runAsNonRoot": True}, {"runAsUser": 0})
    assert user({"runAsNonRoot": True}, {"runAsNonRoot": False}) == (0, 0)


def test_the_backup_entry_reads_exit_statuses_as_they_are_written() -> None:
    for code in (0, 1, 99):
        assert backup_entry.exit_status(json.loads(json.dumps(status(code)))) == code
    assert backup_entry.exit_status(json.loads(json.dumps(status(0, "lost")))) == 1
    with pytest.raises(backup_entry.Refused, match="found 2 pods"):
        backup_entry.only_pod({"items": [{"metadata": {"name": n}} for n in "ab"]}, "a=b")
    assert backup_entry.only_pod({"items": [{"metadata": {"name": "a"}}]}, "a=b") == "a"


def test_a_harness_below_tmp_is_still_there() -> None:
    image = replace(find_image("stand-in/python:3"), prefixes=(Path("/tmp/x/venv"),))
    for mounts in ((), (Mount(Path("/v"), "/tmp"),)):
        arguments = view(image=image, mounts=mounts).arguments()
        assert binds(arguments)["/tmp/x/venv"] == ("--ro-bind", "/tmp/x/venv")
        below = max(i for i, word in enumerate(arguments) if word == "/tmp")
        assert below < arguments.index("/tmp/x/venv")
