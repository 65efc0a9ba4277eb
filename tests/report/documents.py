"""Documents for the views' tests: small ones, hostile ones, and a first version's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_pgo_eks.report import document
from pytest_pgo_eks.report.reading import checked

FIRST = Path(__file__).with_name("data") / "verdict-first.json"
BEGAN = datetime(2026, 11, 23, 20, 31, 46, tzinfo=UTC)
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style><svg onload=alert(1)>",
    "\x00\x07\x1b[31mred\x1b[0m\x85\u202egnp.exe",
    "emoji 🐘👩‍🚀 and ünïcödé",
    "half \ud800 a pair",
    "]]> & &amp; ' \" \\ ` | * _ [x](javascript:alert(1)) @somebody http://evil.example/",
    "{{7*7}} ${7*7} %s %d {0}",
    "line one\nline two\r\nline three",
    "x" * 5000,
)


def finding(rule: str, outcome: str = "holds", **numbers: Any) -> dict[str, Any]:
    return {
        "rule": rule,
        "outcome": outcome,
        "sentence": f"{rule} {outcome}",
        "numbers": numbers,
        "operations": ["op 1, the smallest example"],
        "evidence": None,
    }


def recovered(path: str = "the primary Service", **numbers: Any) -> dict[str, Any]:
    outcome = numbers.pop("outcome", "holds")
    told = {"lower_s": 1.5, "upper_s": 1.75, "budget_s": 30.0, "sessions": "new sessions"} | numbers
    return finding("acknowledged-again-in-time", outcome, path=path, **told)


def scenario(name: str = "It holds", verdict: str = "pass", **more: Any) -> dict[str, Any]:
    """Return a scenario as ``scenario.json`` holds it."""
    plain = {
        "id": f"features/failover/castle.feature::{name}",
        "feature": "Castles",
        "rule": "Castles stand",
        "name": name,
        "tags": ["failover", "level-1", "S10", "C2"],
        "line": 7,
        "level": 1,
        "requirements": ["S10", "S15", "C2"],
        "verdict": verdict,
        "reason": "" if verdict == "pass" else f"{name}: because",
        "began": BEGAN.isoformat(),
        "took_s": 12.5,
        "steps": [
            {
                "kind": "given",
                "text": "a castle",
                "began_s": 0.0,
                "took_s": 1.0,
                "outcome": "passed",
            },
            {
                "kind": "then",
                "text": "it stands",
                "began_s": 1.0,
                "took_s": 11.5,
                "outcome": "passed" if verdict == "pass" else "failed",
            },
        ],
        "faults": [],
        "findings": [],
        "attachments": [],
        "folder": "scenarios/castle",
        "replication": None,
        "seed": 5,
        "outages": [],
    }
    return plain | more


def disruptive(name: str = "It falls", verdict: str = "pass", **more: Any) -> dict[str, Any]:
    """Return a scenario with a fault, figures and files."""
    plain = {
        "faults": [
            {
                "kind": "pod-deleted",
                "target": "castle-0",
                "proof": "its UID is gone",
                "began_s": 2.0,
                "numbers": {},
            }
        ],
        "findings": [
            recovered(),
            recovered("PgBouncer", lower_s=14.2, upper_s=15.0),
            finding(
                "no-acknowledged-write-lost", acknowledged=4270, lost=0, unsafe=1, indeterminate=6
            ),
            finding(
                "replica-staleness", "expected", reads=400, stale=3, p50_s=0.0, p99_s=0.1, max_s=2.5
            ),
        ],
        "attachments": ["scenarios/castle/history.jsonl.gz", "scenarios/castle/timeline.svg"],
        "replication": "sync",
    }
    return scenario(name, verdict, **{**plain, **more})


def skipped(name: str = "It needs a moat", **more: Any) -> dict[str, Any]:
    reason = "needs zones (nodes in three zones): cluster castle does not have it"
    return scenario(name, "skipped", **{"reason": reason, "steps": [], **more})


def run_of(**more: Any) -> document.Run:
    subject = more.pop("subject", None) or document.Subject(
        "eks",
        stand_in=False,
        kubernetes="v1.34.2-eks-abc",
        pgo="6.0.1",
        postgresql="17.6",
        patroni="4.1.5",
        namespace="postgres-operator",
        cluster="hippo",
        manifest_sha256="ab" * 32,
        capabilities=("zones", "partition"),
        region="us-east-1",
        images=({"container": "database", "image": "pg:17", "digest": "sha256:" + "cd" * 32},),
    )
    plain: dict[str, Any] = {
        "subject": subject,
        "began": BEGAN,
        "rerun": "pytest --cluster=eks",
        "name": "20261123T203146Z-eks-1a2b",
        "seed": 4,
        "took_s": 900.0,
        "deselected": ({"id": "features/x.feature::Left", "reason": "level 4 is above 3"},),
    }
    return document.Run(**{**plain, **more})


def built(scenarios: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a whole document, as a reader gets it."""
    return checked(document.build(run_of(**more), scenarios), "the test's document")


def everything() -> dict[str, Any]:
    """Return a document in which everything occurs that the views know."""
    gate = {
        "met": False,
        "policy": {"name": "release"},
        "reasons": [{"sentence": "It breaks: a promise was broken", "code": "violation"}],
        "allowed": ["It needs a moat: skipped"],
    }
    lost = finding("no-acknowledged-write-lost", "violated", acknowledged=100, lost=3)
    late = recovered(lower_s=63.2, upper_s=64.1, outcome="violated", over=True)
    never = recovered("PgBouncer", lower_s=20.0, upper_s=60.0, outcome="violated", over=False)
    made = built(
        [
            scenario("It holds"),
            disruptive(),
            disruptive("It breaks", "violation", findings=[late, never, lost]),
            disruptive("Nobody can look", "inconclusive"),
            skipped(),
            scenario("It lets in", findings=[finding("deviation-D13", "expected")]),
        ],
        provider_record={
            "region": "us-east-1",
            "cost": {
                "lines": [{"what": "3 nodes", "hours": 1.5, "usd": 2.25}],
                "usd": 2.25,
                "estimate_usd": 3.0,
                "prices_of": "2026-11-01",
            },
            "leftovers": ["volume vol-1: aws ec2 delete-volume --volume-id vol-1"],
            "deviations": [
                {"id": "D5", "text": "three nodes", "did": "six", "why": "as configured"}
            ],
        },
        settings={"level": 3, "timeout_scale": 1.0},
        environment={"python": "3.11.7"},
        executor={
            "name": "GitHub Actions",
            "build": "17",
            "url": "https://ci.example/o/r/actions/runs/17",
            "repository": "o/r",
            "commit": "c0ffee",
            "branch": "main",
        },
        commit="c0ffee",
    )
    return {**made, "gate": gate}


def hostile() -> dict[str, Any]:
    """Return a document whose every text is an attack on some format."""
    made = []
    for number, text in enumerate(HOSTILE):
        found = finding("no-acknowledged-write-lost", "violated", acknowledged=1, lost=1)
        found |= {"sentence": text, "operations": [text]}
        made.append(
            disruptive(
                text,
                ("violation", "inconclusive", "skipped", "pass")[number % 4],
                id=f"{text}::{text}",
                feature=text,
                rule=text,
                reason=text,
                tags=[text],
                requirements=[text],
                steps=[
                    {"kind": "then", "text": text, "began_s": 0, "took_s": 1, "outcome": "failed"}
                ],
                faults=[
                    {
                        "kind": text,
                        "target": text,
                        "proof": text,
                        "began_s": 1,
                        "numbers": {text: text},
                    }
                ],
                findings=[found, recovered(text)],
                attachments=[text, f"../../{text}", "javascript:alert(1)", "/etc/passwd"],
                replication=text,
                began=text,
            )
        )
    subject = document.Subject(HOSTILE[0], stand_in=True, pgo=HOSTILE[1], postgresql=HOSTILE[3])
    whole = built(
        made,
        subject=subject,
        rerun=HOSTILE[6],
        name=HOSTILE[0],
        environment={HOSTILE[0]: HOSTILE[1]},
        executor={
            "name": "GitHub Actions",
            "build": HOSTILE[0],
            "url": "javascript:alert(1)",
            "repository": HOSTILE[0],
            "commit": "x",
            "branch": HOSTILE[2],
        },
        deselected=({"id": HOSTILE[0], "reason": HOSTILE[1]},),
    )
    reasons = [{"sentence": text} for text in HOSTILE]
    return {
        **whole,
        "gate": {"met": False, "policy": HOSTILE[0], "reasons": [*reasons, 1], "allowed": 3},
    }
