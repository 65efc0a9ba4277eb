"""Signatures by what the user already has: gpg or cosign. This program makes no keys.

A signature lies beside the bundle, over the whole file: ``BUNDLE.asc`` of gpg,
``BUNDLE.sigstore.json`` of cosign. Checksums in a bundle show that it is whole; only a signature
shows whose it is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.secrets import filtered

SUFFIXES = {"gpg": ".asc", "cosign": ".sigstore.json"}
_WITHIN_S = 300.0
_FINGERPRINT = re.compile(r"[0-9A-F]{40}([0-9A-F]{24})?")


def sign(bundle: Path, tool: str, key: str | None) -> Path:
    """Sign ``bundle`` and return the signature's file.

    ``key``: gpg's key id or user id (its default key without), cosign's key reference (keyless
    without: cosign then asks the identity provider of the machine it runs on).

    :raises UsageProblem: the tool is not here, or refused; its last line is told.
    """
    to = bundle.with_name(bundle.name + SUFFIXES[tool])
    to.unlink(missing_ok=True)
    if tool == "gpg":
        chosen = ["--local-user", key] if key else []
        command = ["gpg", "--batch", "--yes", *chosen, "--armor", "--output", str(to)]
        _run([*command, "--detach-sign", str(bundle)])
    else:
        chosen = ["--key", key] if key else []
        _run(["cosign", "sign-blob", "--yes", *chosen, "--bundle", str(to), str(bundle)])
    if not to.is_file():
        raise UsageProblem(f"{tool} said that it signed and left no {to.name}")
    return to


def check(
    bundle: Path,
    *,
    key: str | None = None,
    identity: str | None = None,
    issuer: str | None = None,
    signature: Path | None = None,
) -> str:
    """Demand a good signature by whom the caller names; return a line that says by whom it is.

    gpg: ``key`` is the full fingerprint. cosign: ``key`` is a public key, or ``identity`` and
    ``issuer`` are those of the certificate.

    :raises UsageProblem: there is no signature, it is not good, or by somebody else.
    """
    found = signature or _beside(bundle)
    if found.name.endswith(SUFFIXES["gpg"]):
        return _check_gpg(bundle, found, key)
    if key:
        asked = ["--key", key]
    elif identity and issuer:
        asked = ["--certificate-identity", identity, "--certificate-oidc-issuer", issuer]
    else:
        raise UsageProblem(
            "cosign: say whose signature it has to be: --key, or --identity and --issuer"
        )
    _run(["cosign", "verify-blob", *asked, "--bundle", str(found), str(bundle)])
    return f"signed: cosign, {key or identity}"


def _beside(bundle: Path) -> Path:
    for suffix in SUFFIXES.values():
        if (found := bundle.with_name(bundle.name + suffix)).is_file():
            return found
    raise UsageProblem(
        f"{bundle}: there is no signature beside it ({', '.join(SUFFIXES.values())})"
    )


def _check_gpg(bundle: Path, signature: Path, key: str | None) -> str:
    wanted = (key or "").replace(" ", "").upper()
    if not _FINGERPRINT.fullmatch(wanted):
        raise UsageProblem(
            "gpg: say whose signature it has to be: --key FINGERPRINT, all 40 digits "
            "(gpg --fingerprint shows it)"
        )
    told = _run(["gpg", "--batch", "--status-fd", "1", "--verify", str(signature), str(bundle)])
    # VALIDSIG ends with the primary key's fingerprint; a subkey may have signed.
    valid = [
        line.split()[2:] for line in told.splitlines() if line.startswith("[GNUPG:] VALIDSIG ")
    ]
    if not any(wanted in (fields[0], fields[-1]) for fields in valid):
        raise UsageProblem(f"{bundle}: the signature is not by {wanted}")
    return f"signed: gpg, {wanted}"


def _run(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        raise UsageProblem(
            f"{command[0]} is not installed here, so nothing can be signed or checked"
        )
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            timeout=_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageProblem(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        told = filtered(lines[-1].strip()) if lines else f"exit status {done.returncode}"
        raise UsageProblem(f"{command[0]} {_verb(command)}: {told}")
    return done.stdout


def _verb(command: list[str]) -> str:
    verbs = ("sign-blob", "verify-blob", "--detach-sign", "--verify")
    return next(word.lstrip("-") for word in command if word in verbs)
