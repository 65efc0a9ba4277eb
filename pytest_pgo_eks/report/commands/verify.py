"""``verify``: judge a bundle's raw histories again, and say whether the verdict follows."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report.bundle.signing import check
from pytest_pgo_eks.report.bundle.verifying import Verified, verify
from pytest_pgo_eks.report.text import plain
from pytest_pgo_eks.secrets import filtered, masked

HELP = "judge a bundle's raw histories again; status 0 where its verdict follows from them, else 1"
_SHOWN = 20


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle, or a run's folder")
    parser.add_argument("--signature", type=Path, metavar="FILE", help="default: beside the bundle")
    parser.add_argument(
        "--key", help="gpg: fingerprint of who has to have signed; cosign: public key"
    )
    parser.add_argument("--identity", help="cosign without a key: identity of the certificate")
    parser.add_argument("--issuer", help="cosign without a key: OIDC issuer of the certificate")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def execute(arguments: argparse.Namespace) -> int:
    signed = None
    asked = (arguments.signature, arguments.key, arguments.identity, arguments.issuer)
    if any(asked):
        if not arguments.bundle.is_file():
            raise UsageProblem(f"{arguments.bundle}: only a bundle can be signed")
        signed = check(
            arguments.bundle,
            signature=arguments.signature,
            key=arguments.key,
            identity=arguments.identity,
            issuer=arguments.issuer,
        )
    result = verify(arguments.bundle)
    if arguments.json:
        print(json.dumps(masked(_document(result, signed)), indent=1, ensure_ascii=False))
    else:
        for line in _lines(result, signed):
            print(filtered(plain(line).replace("\n", " ")))
    return 1 if result.wrong else 0


def _lines(result: Verified, signed: str | None) -> list[str]:
    counts = result.document["counts"]
    told = [signed] if signed else []
    if result.files:
        told.append(f"{result.files} files, every checksum right")
    told.append(
        f"judged again: {result.findings} findings by {result.histories} histories; taken as told: "
        f"{result.taken} that looked at the cluster or at a moment of the run; "
        f"{result.unseen} scenarios have no history"
    )
    told += [f"note: {line}" for line in result.notes[:_SHOWN]]
    if more := len(result.notes) - _SHOWN:
        told += [f"note: {more} more"] if more > 0 else []
    verdict = (
        f"{result.document['verdict']} ({counts['pass']} passed, {counts['violation']} violated, "
        f"{counts['inconclusive']} inconclusive, {counts['skipped']} skipped)"
    )
    if not result.wrong:
        told.append(f"the verdict follows from the evidence: {verdict}")
    else:
        told.append(f"REFUSED: the verdict does not follow from the evidence: {result.wrong[0]}")
        told += [f"  and: {line}" for line in result.wrong[1:_SHOWN]]
        if (more := len(result.wrong) - _SHOWN) > 0:
            told.append(f"  and {more} more")
    if disclaimer := result.document["disclaimer"]:
        told.append(disclaimer)
    return told


def _document(result: Verified, signed: str | None) -> dict[str, object]:
    return {
        "follows": not result.wrong,
        "verdict": result.document["verdict"],
        "signed": signed,
        "files": result.files,
        "histories": result.histories,
        "findings": result.findings,
        "taken_as_told": result.taken,
        "without_history": result.unseen,
        "wrong": result.wrong,
        "notes": result.notes,
        "disclaimer": result.document["disclaimer"],
    }
