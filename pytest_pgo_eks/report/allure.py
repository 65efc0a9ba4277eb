"""What Allure's report shows beside results, and no adapter writes: environment, categories, executor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_pgo_eks.report.text import line
from pytest_pgo_eks.report.views import written

CATEGORIES = (
    {"name": "Broken promises", "matchedStatuses": ["failed"]},
    {"name": "Infrastructure: nothing is proven", "matchedStatuses": ["broken"]},
    {
        "name": "Did not run: the cluster lacks a capability",
        "matchedStatuses": ["skipped"],
        "messageRegex": r"(?s).*needs [a-z-]+ \(.*",
    },
    {"name": "Did not run", "matchedStatuses": ["skipped"]},
)


def write(document: Mapping[str, Any], folder: Path) -> None:
    """Write the three files into Allure's results folder.

    :raises UsageProblem: it cannot be written to.
    """
    written(folder / "environment.properties", environment(document))
    written(folder / "categories.json", json.dumps(CATEGORIES, indent=1) + "\n")
    written(folder / "executor.json", json.dumps(executor(document), indent=1) + "\n")


def environment(document: Mapping[str, Any]) -> str:
    """Return Java properties of what was judged."""
    subject, suite = document["subject"], document["suite"]
    told = {
        "verdict": document["verdict"],
        "evidence": "no, it ran on the stand-in" if subject["stand_in"] else "yes",
        **{
            name: subject[name]
            for name in ("provider", "region", "pgo", "postgresql", "patroni", "kubernetes")
        },
        "PostgresCluster.sha256": subject["manifest_sha256"],
        "suite": f"{suite['version']} {suite['commit'] or ''}".strip(),
        "run": document["run"],
        "seed": document["seed"],
        "rerun": document["rerun"],
        # Apart, so that the client library's version is not taken for the cluster's.
        **{f"runner.{name}": value for name, value in document["environment"].items()},
    }
    return "".join(
        f"{_escaped(name, key=True)}={_escaped(str(value))}\n"
        for name, value in told.items()
        if value not in {None, ""}
    )


def executor(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the CI job, or that a person ran it."""
    job = document["executor"]
    plain = {"reportName": f"PGO conformance {document['run']}".strip()}
    if not job:
        return {"name": "by hand", "type": "local", **plain}
    build = str(job["build"] or "")
    told = {
        "name": job["name"],
        "type": {"GitHub Actions": "github", "GitLab CI": "gitlab", "Jenkins": "jenkins"}.get(
            job["name"], "ci"
        ),
        "buildName": f"{job['repository'] or ''} {build}".strip(),
        "buildUrl": job["url"],
        **({"buildOrder": int(build)} if build.isdecimal() else {}),
    }
    return {name: value for name, value in told.items() if value} | plain


def _escaped(text: str, *, key: bool = False) -> str:
    """Return ``text`` as a .properties file has it: ISO 8859-1 with escapes."""
    shown = line(text, 1000).replace("\\", "\\\\")
    if key:
        for special in " :=":
            shown = shown.replace(special, f"\\{special}")
    return "".join(
        character if " " <= character <= "~" else _unicode(character) for character in shown
    )


def _unicode(character: str) -> str:
    units = character.encode("utf-16-be", "replace")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
