from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pytest_pgo_eks.findings import Finding
from pytest_pgo_eks.report import document
from pytest_pgo_eks.report.evidence import ScenarioEvidence, ScenarioIdentity

SCHEMA = json.loads(
    (Path(document.__file__).with_name("verdict.schema.json")).read_text(encoding="utf-8")
)


def full_document(tmp_path: Path) -> dict[str, Any]:
    identity = ScenarioIdentity("features/f.feature::S", "F", "R", "S", ("failover", "level-1"), 12)
    kept = ScenarioEvidence(identity, tmp_path)
    kept.step_begins("given", "a PostgresCluster with 3 instances")
    kept.step_ends("passed")
    kept.fault("pod-deleted", "hippo-pg-1-abcd-0", "its UID is gone", {"grace_s": 30.0})
    kept.add(Finding("no-loss", "holds", "nothing is lost", {"lost": 0}, ("op 1",), "x.npz"))
    kept.attach("note.txt", "text")
    kept.conclude("pass")
    subject = document.Subject("local", stand_in=True, capabilities=("zones",))
    return document.write(
        document.Run(subject, datetime.now(UTC), "pytest", deselected=({"id": "a::b"},)), tmp_path
    )


def test_what_is_written_is_what_the_schema_says(tmp_path: Path) -> None:
    full_document(tmp_path)
    written = json.loads((tmp_path / "verdict.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(written, SCHEMA)
    assert written["schema"] == document.SCHEMA == SCHEMA["$id"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("verdict"),
        lambda d: d.update(verdict="maybe"),
        lambda d: d["scenarios"][0].update(verdict="passed"),
        lambda d: d["scenarios"][0]["findings"][0].pop("sentence"),
        lambda d: d["counts"].update({"pass": -1}),
        lambda d: d.update(surprise=1),
    ],
    ids=["no verdict", "verdict", "scenario", "finding", "count", "surprise"],
)
def test_the_schema_refuses_what_is_not_a_verdict(tmp_path: Path, spoil: Any) -> None:
    found = json.loads(json.dumps(full_document(tmp_path)))
    spoil(found)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, SCHEMA)
