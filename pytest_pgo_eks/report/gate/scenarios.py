"""Whether what was required came to a verdict, and nothing to a violation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from pytest_pgo_eks.report.gate.catalogue import Listed
from pytest_pgo_eks.report.gate.decision import Reason, Ruling
from pytest_pgo_eks.report.gate.policy import matches, selects
from pytest_pgo_eks.report.measures import JUDGED

Run = Mapping[str, Any]
Value = Mapping[str, Any]
Key = tuple[str, str]
_LEFT_OUT = "left out"
_NOT_RUN = ("missing", "deselected", "skipped", "unable")
_RANK = ("deselected", "skipped", "unable", "pass", "inconclusive", "violation")
_TOLD = {
    "missing": "is in none of the runs",
    "deselected": "was deselected",
    "skipped": "was skipped",
    "unable": "could not run, the cluster lacks a capability",
}


def check_scenarios(
    value: Value, runs: Sequence[Run], known: Sequence[Listed], today: date, ruling: Ruling
) -> None:
    """Look at every known scenario over the runs of one subject."""
    states, told = _states(runs, known), _reasons(runs)
    quarantine = _standing(value, today, ruling)
    for scenario in known:
        entries = [one for one in quarantine if matches(one["scenario"], scenario.name)]
        excused = {outcome for one in entries for outcome in one["outcomes"]}
        look = _Look(value, scenario, states[scenario.key], told.get(scenario.key, []), ruling)
        look.judge(excused)


def _standing(value: Value, today: date, ruling: Ruling) -> list[Value]:
    """Return the entries of the quarantine that hold today; an expired one is a reason of its own."""
    found = []
    for one in value.get("quarantine", ()):
        if date.fromisoformat(one["expires"]) >= today:
            found.append(one)
            continue
        sentence = (
            f"the quarantine of “{one['scenario']}” expired on {one['expires']} "
            f"({one['reason']}): take it away or say anew why"
        )
        ruling.against("quarantine-expired", sentence, one["scenario"])
    return found


def _states(runs: Sequence[Run], known: Sequence[Listed]) -> dict[Key, Counter[str]]:
    """Count, for every scenario, in how many runs it was what."""
    by_id = {one.id: one.key for one in known}
    found: dict[Key, Counter[str]] = {one.key: Counter() for one in known}
    for run in runs:
        seen: dict[Key, str] = {}
        for one in run["left_out"]:
            # A run of an older version tells no more than the id of what it left out.
            key = (one["feature"], one["name"])
            kind = {"missing-capability": "unable"}.get(one["kind"], one["kind"])
            seen[key if key in found else by_id.get(one["id"], key)] = kind
        for one in run["scenarios"]:
            key, verdict = (one["feature"], one["name"]), one["verdict"]
            # Where a run tells of one scenario twice, the worst counts.
            if verdict != "skipped" and _RANK.index(verdict) >= _RANK.index(
                seen.get(key, _RANK[0])
            ):
                seen[key] = verdict
        for key, mine in found.items():
            mine[seen.get(key, "missing")] += 1
    return found


@dataclass
class _Look:
    """One scenario over the runs: ``states`` counts in how many of them it was what."""

    value: Value
    scenario: Listed
    states: Counter[str]
    told: Sequence[tuple[str, str]]
    ruling: Ruling

    def judge(self, excused: set[str]) -> None:
        name = self.scenario.name
        for outcome in ("violation", "inconclusive"):
            if self.states[outcome] and outcome in excused:
                self.ruling.allowed.append(f"“{name}” is quarantined: {outcome}")
        if self.states["violation"] and "violation" not in excused:
            self._verdict("violation")
        required = [one for one in self.value["required"] if selects(one, self.scenario)]
        if required:
            usual = self.value["evidence"]["repeats"]
            self.ruling.required += 1
            self._required(max(int(one.get("repeats", usual)) for one in required), excused)
        else:
            self._other(excused)

    def _required(self, repeats: int, excused: set[str]) -> None:
        decisions = self.value["outcomes"]["required"]
        judged = sum(self.states[state] for state in JUDGED)
        inconclusive = self.states["inconclusive"]
        if inconclusive and "inconclusive" not in excused:
            how = decisions["inconclusive"]
            if how == "fail" or (how == "outweighed" and judged < repeats):
                self._verdict("inconclusive")
                return
            told = f"“{self.scenario.name}” is inconclusive in {inconclusive} of the runs"
            self.ruling.allowed.append(told)
        if judged >= repeats:
            return
        name = self.scenario.name
        reasons = [state for state in _NOT_RUN if self.states[state]]
        for state in reasons:
            sentence = f"required: “{name}” {_TOLD[state]}{self._because()}"
            if judged:
                sentence = f"required: “{name}” ran in {judged} of the {repeats} runs asked for"
            excuse = self._excuse(state)
            if excuse is not None:
                self.ruling.allowed.append(f"“{name}” {_TOLD[state]}: {excuse}")
                continue
            self.ruling.decide(decisions[state], state, sentence, name)
            if decisions[state] == "fail":
                return
        if not reasons and not inconclusive:
            sentence = f"required: “{name}” ran in {judged} of the {repeats} runs asked for"
            self.ruling.against("repeats", sentence, name)

    def _excuse(self, state: str) -> str | None:
        """Return why the policy lets this scenario be left out in this way."""
        for one in self.value.get("excused", ()):
            if state in one["outcomes"] and matches(one["scenario"], self.scenario.name):
                return str(one["reason"])
        return None

    def _other(self, excused: set[str]) -> None:
        decisions, name = self.value["outcomes"]["others"], self.scenario.name
        for state in _NOT_RUN[1:]:
            if self.states[state] and decisions[state] == "fail":
                sentence = f"“{name}” {_TOLD[state]}{self._because()}"
                self.ruling.against(state, sentence, name)
        if self.states["inconclusive"] and "inconclusive" not in excused:
            if decisions["inconclusive"] == "fail":
                self._verdict("inconclusive")
            else:
                self.ruling.allowed.append(f"“{name}” is inconclusive")

    def _verdict(self, verdict: Any) -> None:
        reasons = [reason for state, reason in self.told if state == verdict]
        why = next(filter(None, reasons), "no reason was told")
        sentence = f"“{self.scenario.name}” is {'a ' * (verdict == 'violation')}{verdict}: {why}"
        self.ruling.reasons.append(Reason(verdict, verdict, sentence, self.scenario.name))

    def _because(self) -> str:
        reasons = [reason for state, reason in self.told if state == _LEFT_OUT]
        return next((f" ({one})" for one in reasons if one), "")


def _reasons(runs: Sequence[Run]) -> dict[Key, list[tuple[str, str]]]:
    """Return what was told of every scenario: its verdict, or that it was left out, and why."""
    found: dict[Key, list[tuple[str, str]]] = {}
    for run in runs:
        for section in ("scenarios", "left_out"):
            for one in run[section]:
                state = one["verdict"] if section == "scenarios" else _LEFT_OUT
                reason = str(one["reason"]).strip().partition("\n")[0]
                found.setdefault((one["feature"], one["name"]), []).append((state, reason))
    return found
