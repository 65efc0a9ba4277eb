"""Signatures: with gpg itself where it is here, and with a cosign that remembers what it was told."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report.__main__ import main
from pytest_pgo_eks.report.bundle.signing import check, sign

from .runs import run_folder

# A cosign that writes its arguments down, and "signs" by copying the file.
COSIGN = """#!/bin/sh
printf '%s\\n' "$@" > "{log}"
for word in "$@"; do last=$word; done
while [ $# -gt 0 ]; do [ "$1" = --bundle ] && bundle=$2; verb=${{verb:-$1}}; shift; done
if [ "$verb" = sign-blob ]; then cp "$last" "$bundle"; else
cmp -s "$last" "$bundle" || {{ echo "Error: signature does not match password=canary99" >&2; exit 1; }}; fi
"""


@pytest.fixture
def cosign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "cosign.log"
    (programs / "cosign").write_text(COSIGN.format(log=log), "utf-8")
    (programs / "cosign").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return log


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    file = tmp_path / "run.tar.gz"
    file.write_bytes(b"a bundle")
    return file


def test_cosign_is_asked_for_a_bundle_of_its_own(cosign: Path, bundle: Path) -> None:
    signature = sign(bundle, "cosign", "awskms:///alias/x")
    assert signature.name == "run.tar.gz.sigstore.json"
    assert cosign.read_text().split() == [
        "sign-blob",
        "--yes",
        "--key",
        "awskms:///alias/x",
        "--bundle",
        str(signature),
        str(bundle),
    ]
    assert check(bundle, key="cosign.pub") == "signed: cosign, cosign.pub"
    assert cosign.read_text().split()[:3] == ["verify-blob", "--key", "cosign.pub"]


def test_keyless_says_whose_certificate_it_has_to_be(cosign: Path, bundle: Path) -> None:
    sign(bundle, "cosign", None)
    assert "--key" not in cosign.read_text().split()
    check(bundle, identity="https://ci/x", issuer="https://issuer")
    words = cosign.read_text().split()
    assert words[1:5] == [
        "--certificate-identity",
        "https://ci/x",
        "--certificate-oidc-issuer",
        "https://issuer",
    ]
    with pytest.raises(UsageProblem, match="say whose signature"):
        check(bundle, identity="https://ci/x")


def test_what_cosign_refuses_is_refused_and_no_secret_is_passed_on(
    cosign: Path, bundle: Path
) -> None:
    sign(bundle, "cosign", None)
    bundle.write_bytes(b"another")
    with pytest.raises(UsageProblem, match="does not match") as refused:
        check(bundle, key="k")
    assert "canary99" not in str(refused.value)


def test_a_tool_that_is_not_here_is_named(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageProblem, match="cosign is not installed here"):
        sign(bundle, "cosign", None)
    with pytest.raises(UsageProblem, match="there is no signature beside it"):
        check(bundle, key="k")


def test_a_tool_that_says_yes_and_signs_nothing_is_found_out(
    cosign: Path, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin" / "cosign").write_text("#!/bin/sh\nexit 0\n", "utf-8")
    with pytest.raises(UsageProblem, match="left no"):
        sign(bundle, "cosign", None)


# -- gpg

needs_gpg = pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed here")


def _gpg(*arguments: str) -> str:
    done = subprocess.run(
        ["gpg", "--batch", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def _key(name: str) -> str:
    """Make a key and return its fingerprint."""
    _gpg("--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "never")
    lines = _gpg("--with-colons", "--fingerprint", name).splitlines()
    return next(line.split(":")[9] for line in lines if line.startswith("fpr"))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    # A socket's name must be short, so not below pytest's own long paths.
    home = Path(os.path.realpath(tmp_path_factory.getbasetemp())).parent / f"g{os.getpid()}"
    home.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", str(home))
        yield _key("release"), _key("stranger")
        subprocess.run(["gpgconf", "--kill", "all"], check=False)
    shutil.rmtree(home)


@needs_gpg
def test_gpg_signs_and_the_fingerprint_decides(
    keys: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release, stranger = keys
    folder = run_folder(tmp_path)
    assert main(["bundle", str(folder), "--sign", "gpg", "--key", release]) == 0
    bundle = tmp_path / f"{folder.name}.tar.gz"
    assert bundle.with_name(bundle.name + ".asc").is_file()
    capsys.readouterr()
    spaced = " ".join(release[i : i + 4] for i in range(0, 40, 4)).lower()
    assert main(["verify", str(bundle), "--key", spaced]) == 0
    assert f"signed: gpg, {release}" in capsys.readouterr().out
    assert main(["verify", str(bundle), "--key", stranger]) == 4
    assert "the signature is not by" in capsys.readouterr().err
    assert main(["verify", str(bundle), "--key", release[-16:]]) == 4
    assert "all 40 digits" in capsys.readouterr().err
    with bundle.open("ab") as file:
        file.write(b"\0")
    assert main(["verify", str(bundle), "--key", release]) == 4
    assert "BAD signature" in capsys.readouterr().err


def test_a_folder_is_not_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(tmp_path)
    assert main(["verify", str(folder), "--key", "A" * 40]) == 4
    assert "only a bundle can be signed" in capsys.readouterr().err
    assert main(["bundle", str(folder), "--key", "x"]) == 4
    assert "--sign gpg" in capsys.readouterr().err
