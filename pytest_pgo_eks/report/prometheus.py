"""Prometheus' text format, for node-exporter's textfile collector or a Pushgateway.

Every metric is a gauge of the last run, with the labels ``provider``, ``pgo`` and ``postgresql`` in
common; none carries a timestamp, which both readers refuse. Durations are seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_pgo_eks.report.story import gate
from pytest_pgo_eks.report.text import line

_PREFIX = "pgo_conformance"
_HELP = {
    "run_verdict": "1 for the verdict that the last run ended with, 0 for the others",
    "run_scenarios": "Scenarios of the last run by outcome",
    "run_duration_seconds": "How long the last run took",
    "run_end_timestamp_seconds": "When the last run ended",
    "run_evidence": "1 if the last run is evidence about PGO, 0 on the stand-in",
    "run_gate_met": "1 if the gate was met, 0 if it was not; absent where the run had none",
    "run_info": "What the last run judged, as labels",
    "run_cost_dollars": "What the cluster of the last run cost",
    "run_leftovers": "What the last run could not remove",
    "scenario_outcome": "1 for the outcome of the scenario, 0 for the others",
    "scenario_duration_seconds": "How long the scenario took",
    "recovery_lower_seconds": "From the fault to acknowledged writes, at least",
    "recovery_upper_seconds": "From the fault to acknowledged writes, at most; +Inf where never",
    "recovery_budget_seconds": "What was allowed",
    "acknowledged_writes": "Writes that were acknowledged",
    "lost_writes": "Acknowledged writes that are gone",
    "lost_writes_allowed": "1 where the declared replication allows losses",
    "replica_staleness_max_seconds": "Age of the oldest read of a replica",
}
_VERDICTS = ("pass", "violation", "inconclusive")
_OUTCOMES = (*_VERDICTS, "skipped")

Labels = Mapping[str, str]
Sample = tuple[str, Labels, float | None]


def prometheus(document: Mapping[str, Any], run_dir: Path) -> str:
    """Return the whole file: each metric with its HELP and TYPE, then its samples."""
    del run_dir
    subject = document["subject"]
    common = {name: str(subject[name] or "") for name in ("provider", "pgo", "postgresql")}
    by_metric: dict[str, dict[str, float]] = {name: {} for name in _HELP}
    for name, labels, value in (*_of_run(document), *_of_scenarios(document)):
        if value is not None:
            # A series may appear once only; of the same again the last one counts.
            by_metric[name][_labels({**common, **labels})] = float(value)
    parts = []
    for name, series in by_metric.items():
        if series:
            parts.append(f"# HELP {_PREFIX}_{name} {_HELP[name]}\n# TYPE {_PREFIX}_{name} gauge\n")
            parts += [f"{_PREFIX}_{name}{labels} {_value(v)}\n" for labels, v in series.items()]
    return "".join(parts)


def _of_run(document: Mapping[str, Any]) -> Iterator[Sample]:
    for verdict in _VERDICTS:
        yield "run_verdict", {"verdict": verdict}, document["verdict"] == verdict
    for outcome in _OUTCOMES:
        yield "run_scenarios", {"outcome": outcome}, document["counts"][outcome]
    yield "run_scenarios", {"outcome": "deselected"}, len(document["deselected"])
    yield "run_duration_seconds", {}, document["took_s"]
    yield "run_end_timestamp_seconds", {}, _unix_s(document["ended"])
    yield "run_evidence", {}, not document["subject"]["stand_in"]
    if decision := gate(document):
        yield "run_gate_met", {}, decision.met
    subject, suite = document["subject"], document["suite"]
    told = {name: str(subject[name] or "") for name in ("patroni", "kubernetes", "region")}
    told["manifest_sha256"] = str(subject["manifest_sha256"] or "")
    told["suite_version"], told["run"] = suite["version"], document["run"]
    yield "run_info", told, 1
    if document["cost"]:
        yield "run_cost_dollars", {}, document["cost"]["usd"]
    yield "run_leftovers", {}, len(document["leftovers"])


def _of_scenarios(document: Mapping[str, Any]) -> Iterator[Sample]:
    for scenario in document["scenarios"]:
        who = {"feature": scenario["feature"], "scenario": scenario["name"]}
        for outcome in _OUTCOMES:
            yield "scenario_outcome", {**who, "outcome": outcome}, scenario["verdict"] == outcome
        if scenario["verdict"] == "skipped":
            continue
        yield "scenario_duration_seconds", who, scenario["took_s"]
        for row in scenario["rto"]:
            where = {
                **who,
                "path": row["path"],
                "sessions": row["sessions"],
                "fault": "+".join(row["faults"]),
            }
            never = row["upper_s"] is None
            yield "recovery_lower_seconds", where, row["lower_s"]
            yield "recovery_upper_seconds", where, float("inf") if never else row["upper_s"]
            yield "recovery_budget_seconds", where, row["budget_s"]
        if loss := scenario["loss"]:
            yield "acknowledged_writes", who, loss["acknowledged"]
            yield "lost_writes", who, loss["lost"]
            allowed = loss["outcome"] == "expected" or scenario["replication"] == "async"
            yield "lost_writes_allowed", who, allowed
        if scenario["staleness"]:
            yield "replica_staleness_max_seconds", who, scenario["staleness"]["max_s"]


def _labels(labels: Labels) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}"


def _escaped(value: str) -> str:
    return line(value, 200).replace("\\", r"\\").replace('"', r"\"")


def _value(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return f"{value:.6f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"


def _unix_s(moment: str) -> float | None:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except (ValueError, OverflowError):
        return None
