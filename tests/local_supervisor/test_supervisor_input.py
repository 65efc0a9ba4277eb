"""Bad input and hosts that cannot: one clear line, exit status 4, nothing created."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the stand-in is for Linux", allow_module_level=True)

from pytest_pgo_eks.local import __main__ as program
from pytest_pgo_eks.local import commands, pki, preflight, state
from pytest_pgo_eks.local.preflight import Host, Problem, explain

_FREE = Host(
    root=False,
    contained=False,
    seccomp=False,
    most={"user": 1000, "net": 1000},
    unprivileged_clone=None,
    apparmor_restricts=None,
)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(preflight, "_namespaces", list[Problem])


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        code = commands.main(arguments)
    except SystemExit as error:
        code = int(error.code or 0)
    out, complaint = capsys.readouterr()
    assert (code, out) == (4, "")
    assert complaint.count("\n") == 1
    assert not state.root().exists() or not list(state.root().iterdir())
    return complaint


def test_bad_names(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("Upper", "a/b", "../x", "-a", "a" * 41):
        assert "is no cluster name" in _refused(capsys, "up", "--name=" + name)


def test_unknown_option_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unrecognized arguments: --frobnicate" in _refused(capsys, "up", "--frobnicate")
    assert "invalid choice" in _refused(capsys, "sideways")
    assert "invalid int value" in _refused(capsys, "up", "--owner-pid", "me")


def test_unknown_operator_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--operator-version 4.7: one of 6.0, 5.8" in _refused(
        capsys, "up", "--operator-version", "4.7"
    )


def test_no_such_owner(capsys: pytest.CaptureFixture[str]) -> None:
    for pid in ("99999999", "-5", "0"):
        assert "there is no such process" in _refused(capsys, "up", f"--owner-pid={pid}")


def test_an_api_server_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "kubeconfig"
    up = ("up", "--apiserver", "https://127.0.0.1:1", "--kubeconfig", str(file))
    assert "go together" in _refused(capsys, *up[:3])
    assert "No such file" in _refused(capsys, *up)
    file.write_text("{")
    assert "is no usable kubeconfig" in _refused(capsys, *up)
    file.write_text("clusters: []")
    assert "is no usable kubeconfig: 'current-context'" in _refused(capsys, *up)
    config: dict[str, Any] = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {}}],
        "users": [{"name": "u", "user": {"exec": {"command": "aws"}}}],
    }
    file.write_text(json.dumps(config))
    assert "no certificate authority" in _refused(capsys, *up)
    config["clusters"][0]["cluster"]["certificate-authority-data"] = "WA=="
    file.write_text(json.dumps(config))
    assert "neither a token nor a client certificate" in _refused(capsys, *up)
    config["users"][0]["user"] = {"token": "t"}
    file.write_text(json.dumps(config))
    assert "nobody answers at 127.0.0.1:1" in _refused(capsys, *up)
    plain = ("up", "--apiserver", "http://127.0.0.1:1", "--kubeconfig", str(file))
    assert "an https URL" in _refused(capsys, *plain)


def test_unwritable_state_directory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    where = str(tmp_path / "file" / "below")
    assert "cannot be written" in _refused(capsys, "up", "--state-dir", where)


def test_postgres_versions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = tmp_path / "15" / "bin" / "postgres"
    server.parent.mkdir(parents=True)
    server.write_bytes(b"\x7fELF libssl.so.3")
    monkeypatch.setattr(preflight, "_POSTGRES_ROOT", tmp_path)
    old = _refused(capsys, "up", "--postgres-version", "9")
    assert "PostgreSQL 9 is not supported: use one of 15, 16, 17, 18" in old
    absent = _refused(capsys, "up", "--postgres-version", "17")
    assert "PostgreSQL 17 is not installed (installed: 15)" in absent
    assert "apt-get install --no-install-recommends postgresql-17" in absent
    assert preflight.check(15) == []
    server.write_bytes(b"\x7fELF")
    assert "without TLS" in _refused(capsys, "up")
    server.unlink()
    assert "missing system packages: postgresql: apt-get install" in _refused(capsys, "up")


def test_missing_packages_are_named_with_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        preflight, "_PROGRAMS", {"no-such-nft": "nftables", "no-such-ip": "iproute2", "sh": "dash"}
    )
    complaint = _refused(capsys, "up")
    assert "missing system packages: iproute2, nftables" in complaint
    assert "apt-get install --no-install-recommends iproute2 nftables" in complaint
    monkeypatch.setattr(preflight, "_MODULES", ("no_such_module",))
    assert "pip install 'pytest-pgo-eks[local]'" in _refused(capsys, "up")


def test_not_linux(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert program.main() == 4
    assert "needs Linux" in capsys.readouterr().err
    assert "needs Linux" in str(preflight.check()[0])


def test_no_such_cluster(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no stand-in cluster named 'x'" in _refused(capsys, "down", "--name", "x")
    assert "no stand-in cluster in" in _refused(capsys, "down", "--state-dir", str(tmp_path / "x"))
    assert commands.main(["down", "--all"]) == 0


@pytest.mark.parametrize(
    ("step", "said", "on", "remedy"),
    [
        ("unshare", "", replace(_FREE, most={"user": 0}), "user.max_user_namespaces="),
        ("unshare", "", replace(_FREE, most={"net": 0}), "user.max_net_namespaces=15000"),
        ("unshare", "No space left on device", _FREE, "a limit is reached"),
        ("unshare", "", replace(_FREE, unprivileged_clone=0), "kernel.unprivileged_userns_clone=1"),
        (
            "mount",
            "permission denied",
            replace(_FREE, apparmor_restricts=1),
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            "unshare",
            "Operation not permitted",
            replace(_FREE, root=True, contained=True, seccomp=True),
            "--security-opt seccomp=unconfined",
        ),
        (
            "unshare",
            "Operation not permitted",
            replace(_FREE, root=True, contained=True),
            "--cap-add SYS_ADMIN",
        ),
        ("nft", "Error: Could not process rule", _FREE, "modprobe nf_tables"),
        ("nat", "Error: Could not process rule", _FREE, "nft_chain_nat"),
        ("veth", "Error: Unknown device type.", _FREE, "modprobe veth"),
        ("bridge", "RTNETLINK answers: Operation not supported", _FREE, "modprobe bridge"),
        ("unshare", "Invalid argument", _FREE, "a kernel with user"),
    ],
)
def test_a_forbidden_namespace_names_what_would_allow_it(
    step: str, said: str, on: Host, remedy: str
) -> None:
    problem = explain(step, said, on)
    assert remedy in problem.remedy
    assert said in problem.what


@pytest.mark.parametrize("kind", ["user", "net", "pid"])
def test_a_real_refusal_is_explained(kind: str) -> None:
    forbid = f'echo 0 > /proc/sys/user/max_{kind}_namespaces && exec "$0" "$@"'
    done = subprocess.run(
        [
            "unshare",
            "-Ur",
            "sh",
            "-c",
            forbid,
            sys.executable,
            "-m",
            "pytest_pgo_eks.local",
            "preflight",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.stderr.startswith("unshare:"):
        pytest.skip("no user namespaces here at all")
    assert done.returncode == 4, done
    assert f"sysctl -w user.max_{kind}_namespaces=15000" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_setting_of_root_is_not_asked_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    restricted = replace(_FREE, root=True, unprivileged_clone=0)
    assert "unprivileged_userns_clone" not in explain("unshare", "", restricted).remedy


def test_preflight_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    code = commands.main(["preflight", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is (code == 0)
    assert set(found) == {"ok", "problems", "postgres_versions"}


def test_certificates_hold_in_a_handshake(tmp_path: Path) -> None:
    made = pki.issue(tmp_path / "pki", api_names=["127.0.0.1", "kubernetes"], kubelet_names=["n"])
    for file in (tmp_path / "pki").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700
    trust = ssl.create_default_context(cafile=str(made.ca_file))
    trust.verify_flags |= ssl.VERIFY_X509_STRICT
    for name, pair, good in (
        ("127.0.0.1", made.api_server, True),
        ("kubernetes", made.api_server, True),
        ("n", made.kubelet, True),
        ("kubernetes", made.kubelet, False),
    ):
        assert _handshake(trust, pair.server_context(), name) is good


def _handshake(trust: ssl.SSLContext, server: ssl.SSLContext, name: str) -> bool:
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as wrapped:
                wrapped.recv(1)
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with trust.wrap_socket(ours, server_hostname=name):
            return True
    except ssl.SSLCertVerificationError:
        return False
    finally:
        ours.close()
        thread.join()


def test_a_written_file_is_whole_and_private(tmp_path: Path) -> None:
    file = tmp_path / "f"
    (tmp_path / ".f.partial").write_text("left by a crash")
    for text in ("one", "two"):
        state.write(file, text)
        assert file.read_text() == text
        assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]
