"""A bundle holds everything, says the same for the same files, and shows what was done to it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.report.__main__ import main
from pytest_pgo_eks.report.bundle import rejudging
from pytest_pgo_eks.report.bundle.archive import Limits, pack, unpack

from .runs import edit, run_folder

Ran = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Ran:
    def call(*arguments: object) -> tuple[int, str]:
        status = main([str(one) for one in arguments])
        told = capsys.readouterr()
        return status, told.out + told.err

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return run_folder(tmp_path)


@pytest.fixture
def bundle(folder: Path, run: Ran) -> Path:
    status, told = run("bundle", folder)
    assert status == 0, told
    return folder.parent / f"{folder.name}.tar.gz"


def test_it_holds_everything_and_its_verdict_follows(bundle: Path, folder: Path, run: Ran) -> None:
    with tarfile.open(bundle) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert names[:2] == ["manifest.json", "SHA256SUMS"]
    assert set(names[2:]) == there
    assert names[2:] == sorted(names[2:])
    status, told = run("verify", bundle)
    assert status == 0, told
    assert "every checksum right" in told
    assert "by 1 histories; taken as told: 1 that looked at the cluster" in told
    assert "1 scenarios have no history" in told
    assert "the verdict follows from the evidence: pass (2 passed" in told
    assert "not evidence about PGO" in told


def test_the_same_files_give_the_same_bytes(bundle: Path, folder: Path, run: Ran) -> None:
    first = bundle.read_bytes()
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    folder.chmod(0o700)
    assert run("bundle", folder, "-o", folder.parent / "again.tar.gz")[0] == 0
    assert (folder.parent / "again.tar.gz").read_bytes() == first


def test_its_checksums_are_what_everybody_has_a_tool_for(bundle: Path, tmp_path: Path) -> None:
    with tarfile.open(bundle) as archive:
        archive.extractall(tmp_path / "x", filter="data")
    (inner,) = (tmp_path / "x").iterdir()
    checked = ["sha256sum", "-c", "--quiet", "SHA256SUMS"]
    subprocess.run(checked, cwd=inner, check=True)
    (inner / "run.log").write_text("another\n", "utf-8")
    assert subprocess.run(checked, cwd=inner, capture_output=True, check=False).returncode == 1


def test_json_for_machines(bundle: Path, run: Ran) -> None:
    status, told = run("verify", bundle, "--json")
    found = json.loads(told)
    assert status == 0
    assert found["follows"] is True
    assert (found["histories"], found["taken_as_told"], found["without_history"]) == (1, 1, 1)


def test_what_looks_like_a_secret_is_masked_on_the_way_out(folder: Path, run: Ran) -> None:
    (folder / "notes.txt").write_text("postgresql://u:canary77@h/db password=canary88\n", "utf-8")
    status, told = run("bundle", folder)
    assert status == 0
    assert "masked what looked like a secret in notes.txt" in told
    with tarfile.open(folder.parent / f"{folder.name}.tar.gz") as archive:
        held = [archive.extractfile(member) for member in archive.getmembers()]
        assert not any(b"canary" in file.read() for file in held if file)
    assert run("verify", folder.parent / f"{folder.name}.tar.gz")[0] == 0


def test_a_link_is_not_followed(folder: Path, run: Ran) -> None:
    (folder / "passwd").symlink_to("/etc/passwd")
    status, told = run("bundle", folder)
    assert status == 4
    assert "passwd: no plain file" in told
    assert not list(folder.parent.glob("*.tar.gz"))


def test_it_cannot_lie_in_what_it_holds(folder: Path, run: Ran) -> None:
    status, told = run("bundle", folder, "-o", folder / "b.tar.gz")
    assert (status, told.count("\n")) == (4, 1)


# -- what was done to a run before it was bundled


def _finding(rule: str) -> Callable[[Any], Any]:
    def of(found: Any) -> Any:
        findings = found.get("findings") or found["scenarios"][0]["findings"]
        return next(one for one in findings if one["rule"] == rule)

    return of


def both(folder: Path, change: Callable[[Any], None]) -> None:
    """Alter the first scenario in the verdict and in its own file alike: a careful liar."""
    edit(folder / "verdict.json", lambda d: change(d["scenarios"][0]))
    mine = next(folder.glob("scenarios/failover-*/scenario.json"))
    edit(mine, change)


def drop_history(folder: Path) -> None:
    next(folder.glob("scenarios/*/history.jsonl.gz")).unlink()


def forget_history(folder: Path) -> None:
    drop_history(folder)
    both(folder, lambda s: s.update(attachments=[]))


def cut_history(folder: Path) -> None:
    file = next(folder.glob("scenarios/*/history.jsonl.gz"))
    lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    file.write_bytes(gzip.compress(b"".join(lines[: len(lines) // 2])))


def change_history(folder: Path) -> None:
    file = next(folder.glob("scenarios/*/history.jsonl.gz"))
    raw = gzip.decompress(file.read_bytes()).replace(b'"mode":"sync"', b'"mode":"async"')
    file.write_bytes(gzip.compress(raw))


def bomb_history(folder: Path) -> None:
    file = next(folder.glob("scenarios/*/history.jsonl.gz"))
    file.write_bytes(gzip.compress(b"\0" * (80 << 20), 9))


def better_rto(found: Any) -> None:
    _finding("acknowledged-again-in-time")(found)["numbers"]["upper_s"] = 0.1
    if "rto" in found:
        found["rto"][0]["upper_s"] = 0.1


def edit_loss(found: Any) -> None:
    _finding("no-acknowledged-write-lost")(found)["numbers"]["acknowledged"] += 1000


def rewrite_history(folder: Path, change: Callable[[list[Any]], Any]) -> None:
    """Alter a history's lines and chain them anew, as somebody would who knows the format."""
    file = next(folder.glob("scenarios/*/history.jsonl.gz"))
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    change(lines)
    text, check = b"", 0
    for line in lines:
        if "q" in line:
            line["k"] = check
        raw = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        check = zlib.crc32(raw)
        text += raw
    file.write_bytes(gzip.compress(text, 1))


def bomb_column(lines: list[Any]) -> None:
    batch = next(line for line in lines if "ops" in line.get("t", {}))
    batch["t"]["ops"][1] = base64.b64encode(zlib.compress(b"\0" * (64 << 20), 9)).decode()


def huge_batch(lines: list[Any]) -> None:
    next(line for line in lines if "ops" in line.get("t", {}))["t"]["ops"][0] = 1 << 40


def nonsense_events(lines: list[Any]) -> None:
    next(line for line in lines if line.get("e"))["e"][:] = [{"kind": "mark", "at": "noon"}, 7]


def another_fault(lines: list[Any]) -> None:
    """Let nothing be known of when the fault began, so that any moment could be told."""
    for line in lines:
        for event in line.get("e", ()):
            if event["kind"] == "mark":
                event["name"] = event["name"].replace("fault begins", "nothing begins")


LIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "the run's verdict": (
        lambda f: edit(f / "verdict.json", lambda d: d.update(verdict="violation")),
        "its verdict is 'violation', its scenarios make it 'pass'",
    ),
    "counts": (
        lambda f: edit(f / "verdict.json", lambda d: d["counts"].update({"pass": 100})),
        "it counts {'pass': 100}",
    ),
    "a scenario's verdict": (
        lambda f: edit(
            f / "verdict.json", lambda d: d["scenarios"][1].update(verdict="violation", reason="x")
        ),
        "its scenarios make it 'violation'",
    ),
    "a scenario told twice": (
        lambda f: edit(
            f / "verdict.json",
            lambda d: (d["scenarios"].append(d["scenarios"][0]), d["counts"].update({"pass": 3})),
        ),
        "is in it twice",
    ),
    "where it ran": (
        lambda f: edit(f / "verdict.json", lambda d: d["subject"].update(stand_in=False)),
        "calls itself no stand-in",
    ),
    "its disclaimer": (
        lambda f: edit(f / "verdict.json", lambda d: d.update(disclaimer=None)),
        "does not say what it is no evidence about",
    ),
    "a violated finding in a pass": (
        lambda f: both(f, lambda s: _finding("no-write-twice")(s).update(outcome="violated")),
        "it passed, but [no-write-twice] is violated",
    ),
    "a failed step in a pass": (
        lambda f: both(f, lambda s: s["steps"][0].update(outcome="failed")),
        "it passed, but its step 'the primary is switched over' is failed",
    ),
    "a figure, in one place": (
        lambda f: edit(f / "verdict.json", lambda d: edit_loss(d["scenarios"][0])),
        "its own file says otherwise about findings",
    ),
    "a figure, everywhere": (
        lambda f: both(f, edit_loss),
        "[no-acknowledged-write-lost] acknowledged is told as",
    ),
    "a better recovery, everywhere": (
        lambda f: both(f, better_rto),
        "[acknowledged-again-in-time] upper_s is told as 0.1, its history says",
    ),
    "a better recovery in the table": (
        lambda f: edit(
            f / "verdict.json", lambda d: d["scenarios"][0]["rto"][0].update(upper_s=0.1)
        ),
        "its table 'rto' is not that of its findings",
    ),
    "no history": (drop_history, "history.jsonl.gz is missing"),
    "no history, and none named": (forget_history, "is told, and no history shows it"),
    "half a history": (cut_history, "its history says 'unknown'"),
    "an edited history": (change_history, "a hole"),
    "a column that unpacks to too much": (
        lambda f: rewrite_history(f, bomb_column),
        "bytes too many in ops",
    ),
    "a batch without end": (lambda f: rewrite_history(f, huge_batch), "are too many"),
    "events that are none": (lambda f: rewrite_history(f, nonsense_events), "damaged"),
    "another begin of the fault": (
        lambda f: rewrite_history(f, another_fault),
        "the last fault began at None, not at",
    ),
    "a history that unpacks to too much": (bomb_history, "unpack to more than"),
    "another declared mode": (
        lambda f: both(f, lambda s: s.update(replication="async")),
        "it says replication async, its history was judged as sync",
    ),
    "a folder elsewhere": (
        lambda f: edit(f / "verdict.json", lambda d: d["scenarios"][0].update(folder="../..")),
        "its folder is elsewhere: ../..",
    ),
    "no file of a scenario": (
        lambda f: next(f.glob("scenarios/access-*/scenario.json")).unlink(),
        "its evidence is missing",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_verdict_that_does_not_follow_is_refused(lie: str, folder: Path, run: Ran) -> None:
    """Whoever bundles a run that he has altered has right checksums, and is found out by judging."""
    assert run("verify", folder)[0] == 0
    change, told = LIES[lie]
    change(folder)
    assert run("bundle", folder)[0] == 0
    status, said = run("verify", folder.parent / f"{folder.name}.tar.gz")
    assert status == 1, said
    assert "REFUSED: the verdict does not follow" in said
    assert told in said


def test_what_was_measured_and_demanded_by_nobody_may_be_unknown(folder: Path, run: Ran) -> None:
    """A scenario in which no replica was read says so, and passes all the same."""

    def unread(found: Any) -> None:
        found["findings"] = [one for one in found["findings"] if "stale" not in one["rule"]]
        unknown = {"rule": "replica-staleness", "outcome": "unknown", "sentence": "no replica"}
        found["findings"].append({**unknown, "numbers": {}, "operations": [], "evidence": None})
        found["staleness"] = None

    both(folder, unread)
    status, said = run("verify", folder)
    assert "it passed, but" not in said
    assert status == 1, "but of this history it is not true"
    assert "[replica-staleness] is told as 'unknown'" in said


def test_a_broken_promise_that_nobody_asked_about_is_no_pass(
    folder: Path, run: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    both(folder, lambda s: s.update(findings=[], rto=[], loss=None, staleness=None, deviations=[]))
    edit(folder / "verdict.json", lambda d: d["scenarios"][0].update(rto=[], loss=None))
    assert run("verify", folder)[0] == 0, "nothing is claimed, and nothing is broken"
    broken = Finding("one-primary-at-a-time", "violated", "two acknowledged at once")
    monkeypatch.setattr(rejudging, "judge", lambda *_: [broken])
    status, said = run("verify", folder)
    assert status == 1
    assert "its history breaks [one-primary-at-a-time]: two acknowledged at once" in said


# -- what was done to the archive


def rewrite(bundle: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], Any]) -> None:
    """Take the archive apart, let ``change`` alter its members, and put it together again."""
    with tarfile.open(bundle) as archive:
        members = [(m, archive.extractfile(m).read()) for m in archive.getmembers()]  # type: ignore[union-attr]
    change(members)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for member, data in members:
            if member.isreg():
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    bundle.write_bytes(gzip.compress(out.getvalue(), 1))


def _add(name: str, data: bytes = b"x", **fields: Any) -> Callable[[list[Any]], None]:
    def change(members: list[Any]) -> None:
        top = members[0][0].name.partition("/")[0]
        member = tarfile.TarInfo(name.replace("TOP", top))
        for field, value in fields.items():
            setattr(member, field, value)
        members.append((member, data if member.isreg() else b""))

    return change


def _replace(name: str, old: bytes, new: bytes) -> Callable[[list[Any]], None]:
    def change(members: list[Any]) -> None:
        for i, (member, data) in enumerate(members):
            if member.name.endswith(name):
                assert old in data
                members[i] = (member, data.replace(old, new))

    return change


ATTACKS: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "a tampered verdict": (
        _replace("/verdict.json", b'"verdict": "pass"', b'"verdict": "violation"'),
        "verdict.json was changed",
    ),
    "a tampered history": (_replace(".jsonl.gz", b"\x1f\x8b", b"\x1f\x8c"), "was changed"),
    "a missing history": (
        lambda members: members.pop(
            next(i for i, (m, _) in enumerate(members) if m.name.endswith(".jsonl.gz"))
        ),
        "history.jsonl.gz is missing; the manifest names it",
    ),
    "a file more": (_add("TOP/extra.txt"), "extra.txt was added"),
    "a member twice": (_add("TOP/run.log"), "'run.log' is in it twice"),
    "a member twice in other letters": (_add("TOP/RUN.LOG"), "'RUN.LOG' is in it twice"),
    "a way out": (_add("TOP/../../evil"), "is no name for a file"),
    "an absolute path": (_add("/etc/cron.d/evil"), "is no name for a file"),
    "a path for Windows": (_add("TOP/..\\evil"), "is no name for a file"),
    "a drive": (_add("TOP/c:evil"), "is no name for a file"),
    "a control character": (_add("TOP/a\x1b[31m"), "is no name for a file"),
    "a file at the top": (_add("evil"), "is no name for a file"),
    "another folder": (_add("other/run.log"), "a bundle has one folder"),
    "a symbolic link": (
        _add("TOP/l", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "a symbolic link",
    ),
    "a hard link": (_add("TOP/l", type=tarfile.LNKTYPE, linkname="TOP/run.log"), "a hard link"),
    "a device": (_add("TOP/l", type=tarfile.CHRTYPE), "a device"),
    "a pipe": (_add("TOP/l", type=tarfile.FIFOTYPE), "a pipe"),
    "a directory": (_add("TOP/d", type=tarfile.DIRTYPE), "a directory"),
    "no manifest first": (lambda members: members.pop(0), "does not begin with manifest.json"),
    "no sums": (lambda members: members.pop(1), "SHA256SUMS is missing or says otherwise"),
    "a manifest of another kind": (
        _replace("/manifest.json", b"bundle/1", b"bundle/9"),
        "bundle/9",
    ),
    "a manifest that is none": (
        _replace("/manifest.json", b'"files"', b'"fiels"'),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_archive_that_was_altered_is_refused_with_one_line(
    attack: str, bundle: Path, run: Ran, tmp_path: Path
) -> None:
    change, told = ATTACKS[attack]
    rewrite(bundle, lambda members: None)
    assert run("verify", bundle)[0] == 0, "taken apart and put together it is still whole"
    rewrite(bundle, change)
    before = set(tmp_path.rglob("*"))
    status, said = run("verify", bundle)
    assert status == 4, said
    assert said.count("\n") == 1
    assert told in said
    assert set(tmp_path.rglob("*")) == before


def test_a_manifest_with_right_sums_is_still_compared_with_the_verdict(
    bundle: Path, run: Ran
) -> None:
    """Somebody who alters the manifest alone, and makes its checksum right again."""

    def change(members: list[Any]) -> None:
        _replace("/manifest.json", b'"verdict": "pass"', b'"verdict": "violation"')(members)
        digest = hashlib.sha256(members[0][1]).hexdigest().encode()
        lines = [
            digest + line[64:] if line.endswith(b"manifest.json") else line
            for line in members[1][1].splitlines()
        ]
        members[1] = (members[1][0], b"\n".join(lines) + b"\n")

    rewrite(bundle, change)
    status, said = run("verify", bundle)
    assert (status, said.count("\n")) == (4, 1)
    assert "manifest and verdict disagree about its verdict" in said


@pytest.mark.parametrize("keep", [0, 1, 10, 200, 5000, -3, -600])
def test_a_truncated_archive_is_refused_with_one_line(keep: int, bundle: Path, run: Ran) -> None:
    bundle.write_bytes(bundle.read_bytes()[:keep])
    status, said = run("verify", bundle)
    assert (status, said.count("\n")) == (4, 1), said
    assert "cut off" in said or "no bundle" in said


@pytest.mark.parametrize(
    "data",
    [b"PK\x03\x04 a zip", b"\0" * 4096, gzip.compress(b"hello"), gzip.compress(b"{}" * 1000)],
    ids=["zip", "zeros", "a text", "json"],
)
def test_something_else_is_refused_with_one_line(data: bytes, tmp_path: Path, run: Ran) -> None:
    file = tmp_path / "b.tar.gz"
    file.write_bytes(data)
    status, said = run("verify", file)
    assert (status, said.count("\n")) == (4, 1), said


def test_what_stands_behind_the_end_is_seen(bundle: Path, run: Ran) -> None:
    raw = gzip.decompress(bundle.read_bytes())
    bundle.write_bytes(gzip.compress(raw) + gzip.compress(b"y" * 512))
    assert "behind the end" in run("verify", bundle)[1]


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (Limits(files=2), "more than 2 files"),
        (Limits(file_bytes=100), "is too large"),
        (Limits(all_bytes=2000), "unpack to more than 2000"),
        (Limits(ratio=2, free_bytes=2000), "unpack to more than"),
    ],
    ids=["files", "one file", "all files", "ratio"],
)
def test_absurd_sizes_are_refused(limits: Limits, told: str, tmp_path: Path) -> None:
    archive = tmp_path / "b.tar.gz"
    pack(archive, "top", [(f"{i}.txt", b"\0" * 3000) for i in range(9)])
    assert len(unpack(archive, tmp_path / "fine")) == 9
    with pytest.raises(UsageProblem, match=told):
        unpack(archive, tmp_path / "not", limits)


def test_a_bomb_is_stopped_early(tmp_path: Path, run: Ran) -> None:
    archive = tmp_path / "b.tar.gz"
    pack(archive, "top", [(f"{i}", b"\0" * (16 << 20)) for i in range(6)])
    assert archive.stat().st_size < 200_000
    status, said = run("verify", archive)
    assert (status, said.count("\n")) == (4, 1)
    assert "too much for a bundle" in said


def test_a_size_that_the_archive_does_not_hold_is_cut_off(tmp_path: Path) -> None:
    """A header that promises a gibibyte must not make anybody set it aside."""
    archive = tmp_path / "b.tar.gz"
    member = tarfile.TarInfo("top/big")
    member.size = 1 << 30
    archive.write_bytes(gzip.compress(member.tobuf(tarfile.USTAR_FORMAT)))
    with pytest.raises(UsageProblem, match="cut off"):
        unpack(archive, tmp_path / "x")


def test_a_verdict_that_says_something_twice_is_refused(folder: Path, run: Ran) -> None:
    file = folder / "verdict.json"
    text = file.read_text("utf-8")
    file.write_text(text.replace('"verdict": "pass"', '"verdict": "pass", "verdict": "pass"', 1))
    status, said = run("verify", folder)
    assert status == 4
    assert "says 'verdict' twice" in said


def test_a_verdict_alone_cannot_be_verified(folder: Path, run: Ran) -> None:
    status, said = run("verify", folder / "verdict.json")
    assert status == 4
    assert "name its folder" in said
    assert run("verify", folder / "nowhere")[0] == 4


def test_another_version_compares_outcomes_and_tells_figures(folder: Path, run: Ran) -> None:
    def older(found: Any) -> None:
        found["suite"]["version"] = "0.0.1"
        edit_loss(found["scenarios"][0])

    edit(folder / "verdict.json", older)
    edit(next(folder.glob("scenarios/failover-*/scenario.json")), edit_loss)
    status, said = run("verify", folder)
    assert status == 0, said
    assert "note: judged by version 0.0.1" in said
    assert "[no-acknowledged-write-lost] acknowledged is told as" in said
    edit(
        folder / "verdict.json",
        lambda d: _finding("no-write-twice")(d).update(outcome="expected"),
    )
    edit(
        next(folder.glob("scenarios/failover-*/scenario.json")),
        lambda s: _finding("no-write-twice")(s).update(outcome="expected"),
    )
    assert run("verify", folder)[0] == 1
