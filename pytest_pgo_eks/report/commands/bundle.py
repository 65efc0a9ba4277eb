"""``bundle``: one archive with everything of a run, for somebody else to check."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report import reading
from pytest_pgo_eks.report.bundle import manifest as manifests
from pytest_pgo_eks.report.bundle.archive import pack
from pytest_pgo_eks.report.bundle.signing import SUFFIXES, sign
from pytest_pgo_eks.report.bundle.verifying import SUFFIX

HELP = "put everything of a run, raw histories and checksums included, into one archive"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="a run's folder, or one with 'latest'"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=f"default: beside the folder, NAME{SUFFIX}",
    )
    parser.add_argument("--sign", choices=tuple(SUFFIXES), help="sign it with a tool that is here")
    parser.add_argument("--key", help="the key to sign with (gpg: --local-user, cosign: --key)")


def execute(arguments: argparse.Namespace) -> int:
    if arguments.key and not arguments.sign:
        raise UsageProblem("--key: say with what to sign: --sign gpg or --sign cosign")
    run_dir = reading.verdict_file(arguments.folder).parent.resolve()
    document = reading.load(run_dir)
    name = manifests.folder_name(document, run_dir)
    archive = arguments.output or run_dir.parent / f"{name}{SUFFIX}"
    if archive.resolve().is_relative_to(run_dir):
        raise UsageProblem(f"{archive}: a bundle cannot lie in the folder that it holds")
    entries = manifests.collect(run_dir)
    manifest = manifests.as_bytes(manifests.compose(document, entries))
    own: list[tuple[str, Path | bytes]] = [
        (manifests.FILE, manifest),
        (manifests.SUMS, manifests.sums(entries, manifest)),
    ]
    pack(archive, name, [*own, *((entry.name, entry.content) for entry in entries)])
    print(f"{archive}: {len(entries)} files, {archive.stat().st_size} bytes")
    if masked := [entry.name for entry in entries if entry.masked]:
        print(f"masked what looked like a secret in {', '.join(masked)}")
    if arguments.sign:
        print(f"signed: {sign(archive, arguments.sign, arguments.key)}")
    return 0
