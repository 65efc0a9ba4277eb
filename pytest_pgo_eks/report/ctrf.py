"""Common Test Report Format, version 1.0.0 (https://ctrf.io): for dashboards and summary tools."""

from __future__ import annotations

import json
import mimetypes
import platform
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_pgo_eks.report.text import line, plain

SPEC = "1.0.0"
# What could not be judged neither passed nor failed.
_STATUS = {
    "pass": "passed",
    "violation": "failed",
    "inconclusive": "other",
    "skipped": "skipped",
}
_STEP = {"passed": "passed", "failed": "failed", "skipped": "skipped", "running": "other"}


def ctrf(document: Mapping[str, Any], run_dir: Path) -> str:
    """Return the whole file."""
    del run_dir
    counts, began = document["counts"], _milliseconds(document["began"])
    report = {
        "reportFormat": "CTRF",
        "specVersion": SPEC,
        # The same run has the same id, however often it is written.
        "reportId": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{document['run']} {document['began']}")),
        "runId": document["run"] or document["began"],
        "timestamp": document["ended"],
        "generatedBy": f"pytest-pgo-eks {document['suite']['version']}",
        "results": {
            "tool": {"name": "pytest-pgo-eks", "version": document["suite"]["version"]},
            "summary": {
                "tests": len(document["scenarios"]),
                "passed": counts["pass"],
                "failed": counts["violation"],
                "skipped": counts["skipped"],
                "pending": 0,
                "other": counts["inconclusive"],
                "suites": len({scenario["feature"] for scenario in document["scenarios"]}),
                "start": began,
                "stop": began + round(document["took_s"] * 1000),
                "duration": round(document["took_s"] * 1000),
                "extra": {
                    "verdict": document["verdict"],
                    "disclaimer": document["disclaimer"],
                    "deselected": len(document["deselected"]),
                },
            },
            "tests": [_test(scenario) for scenario in document["scenarios"]],
            "environment": _environment(document),
        },
    }
    return json.dumps(report, indent=1) + "\n"


def _test(scenario: Mapping[str, Any]) -> dict[str, Any]:
    began, took = _milliseconds(scenario["began"]), round(scenario["took_s"] * 1000)
    suite = [line(one) for one in (scenario["feature"], scenario["rule"]) if one.strip()]
    test: dict[str, Any] = {
        "testId": line(scenario["id"], 1000) or "unnamed",
        "name": line(scenario["name"]) or "unnamed",
        "status": _STATUS[scenario["verdict"]],
        "rawStatus": scenario["verdict"],
        "duration": took,
        "start": began,
        "stop": began + took,
        "line": scenario["line"],
        "filePath": line(scenario["id"].partition("::")[0], 1000),
        "type": "conformance",
        "tags": [line(tag) for tag in scenario["tags"]],
        "steps": [
            {
                "name": line(f"{step['kind'].capitalize()} {step['text']}"),
                "status": _STEP[step["outcome"]],
            }
            for step in scenario["steps"]
        ],
        "attachments": [
            {"name": Path(name).name, "contentType": _kind(name), "path": line(name, 1000)}
            for name in scenario["attachments"]
        ],
        "extra": {
            name: scenario[name]
            for name in ("requirements", "level", "rto", "loss", "staleness", "rerun")
        },
    }
    if suite:
        test["suite"] = suite
    if scenario["requirements"]:
        test["labels"] = {"requirement": scenario["requirements"]}
    if scenario["reason"]:
        test["message"] = plain(scenario["reason"])
    return test


def _environment(document: Mapping[str, Any]) -> dict[str, Any]:
    subject, job = document["subject"], document["executor"] or {}
    told: dict[str, Any] = {
        "reportName": "PGO conformance",
        "appName": "PGO",
        "appVersion": subject["pgo"],
        "testEnvironment": subject["provider"],
        "buildName": job.get("name"),
        "buildId": job.get("build"),
        "buildUrl": job.get("url"),
        "repositoryName": job.get("repository"),
        "branchName": job.get("branch"),
        "commit": job.get("commit"),
        "osPlatform": platform.system().lower(),
        "healthy": document["verdict"] == "pass",
        "extra": {
            name: subject[name] for name in ("postgresql", "patroni", "kubernetes", "region")
        },
    }
    return {name: value for name, value in told.items() if value is not None}


def _milliseconds(moment: str) -> int:
    """Return milliseconds of Unix time, 0 for what is no moment."""
    try:
        return max(round(datetime.fromisoformat(moment).timestamp() * 1000), 0)
    except (ValueError, OverflowError):
        return 0


def _kind(name: str) -> str:
    if name.endswith(".jsonl.gz"):
        return "application/gzip"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
