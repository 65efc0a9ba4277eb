"""Whatever happens to a bundle's bytes: refused in one line, or nothing that counts has changed."""

from __future__ import annotations

import gzip
import random
import shutil
from pathlib import Path

import pytest

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report.__main__ import main
from pytest_pgo_eks.report.bundle.archive import unpack
from pytest_pgo_eks.report.bundle.verifying import verify

from .runs import run_folder

_TIMES = 120


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one: without the history, which would take most of the bytes and of the time."""
    folder = run_folder(tmp_path_factory.mktemp("runs"))
    next(folder.glob("scenarios/*/history.jsonl.gz")).unlink()
    assert main(["bundle", str(folder)]) == 0
    return folder.parent / f"{folder.name}.tar.gz"


def contents(bundle: Path, to: Path) -> dict[str, bytes]:
    unpack(bundle, to)
    return {p.relative_to(to).as_posix(): p.read_bytes() for p in to.rglob("*") if p.is_file()}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Turn a byte over, cut a piece out, double one, or put one of another place in."""
    at = chance.randrange(len(data))
    length = chance.choice((1, 2, 16, 512))
    piece = data[at : at + length]
    match chance.randrange(4):
        case 0:
            return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
        case 1:
            return data[:at] + data[at + length :]
        case 2:
            return data[:at] + piece + data[at:]
    other = chance.randrange(len(data))
    return data[:at] + data[other : other + length] + data[at + length :]


@pytest.mark.parametrize("where", ["in the file", "in what it unpacks to"])
def test_no_change_goes_through(where: str, bundle: Path, tmp_path: Path) -> None:
    whole = contents(bundle, tmp_path / "whole")
    packed = bundle.read_bytes()
    chance = random.Random(where)
    refused = 0
    for number in range(_TIMES):
        if where == "in the file":
            data = mutated(packed, chance)
        else:
            data = gzip.compress(mutated(gzip.decompress(packed), chance), 1)
        victim, place = tmp_path / "victim.tar.gz", tmp_path / str(number)
        victim.write_bytes(data)
        if told := refusal(victim):
            assert "\n" not in told
            refused += 1
            continue
        # Bits that mean nothing, such as the time in gzip's own header.
        assert contents(victim, place) == whole
        shutil.rmtree(place)
    assert refused > _TIMES * 0.7


def refusal(bundle: Path) -> str:
    """Return why a bundle is refused, empty where it is taken."""
    try:
        assert verify(bundle).document["verdict"] == "pass"
    except UsageProblem as problem:
        return str(problem)
    return ""
