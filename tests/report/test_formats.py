"""JUnit, CTRF, Markdown and Prometheus: well-formed whatever the names are, and true."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pytest_pgo_eks.report.ctrf import ctrf
from pytest_pgo_eks.report.document import Subject
from pytest_pgo_eks.report.junit import junit
from pytest_pgo_eks.report.markdown import MARKER, code, comment, summary, text
from pytest_pgo_eks.report.prometheus import prometheus
from pytest_pgo_eks.report.views import VIEWS, append_summary, write_views
from pytest_pgo_eks.secrets import Secret

from .documents import HOSTILE, built, disruptive, everything, finding, hostile, recovered, scenario

Document = Callable[[], dict[str, Any]]
BOTH = pytest.mark.parametrize("make", [everything, hostile], ids=["everything", "hostile"])


class TestJUnit:
    @BOTH
    def test_it_is_xml_and_counts_what_there_is(self, make: Document, tmp_path: Path) -> None:
        document = make()
        root = ET.fromstring(junit(document, tmp_path))
        counts = document["counts"]
        assert root.attrib["tests"] == str(len(document["scenarios"]))
        assert root.attrib["failures"] == str(counts["violation"])
        assert root.attrib["errors"] == str(counts["inconclusive"])
        assert root.attrib["skipped"] == str(counts["skipped"])
        assert len(root.findall("./testsuite/testcase")) == len(document["scenarios"])

    def test_requirements_links_and_figures_are_properties(self, tmp_path: Path) -> None:
        root = ET.fromstring(junit(everything(), tmp_path))
        case = next(one for one in root.iter("testcase") if one.attrib["name"] == "It breaks")
        told = [(one.attrib["name"], one.attrib["value"]) for one in case.iter("property")]
        assert [value for name, value in told if name == "requirement"] == ["S10", "S15", "C2"]
        properties = dict(told)
        assert re.fullmatch(r"report\.html#s-it-breaks-[0-9a-f]{8}", properties["link"])
        assert properties["source"] == (
            "https://ci.example/o/r/blob/c0ffee/features/failover/castle.feature#L7"
        )
        assert properties["interruption: the primary Service"] == "63.20 to 64.10 s"
        assert properties["lost writes"] == "3"
        assert properties["rerun"].endswith("'features/failover/castle.feature::It breaks'")

    def test_a_broken_promise_is_a_failure_and_what_nobody_saw_an_error(
        self, tmp_path: Path
    ) -> None:
        root = ET.fromstring(junit(everything(), tmp_path))
        kinds = {
            case.attrib["name"]: [one.tag for one in case if one.tag != "properties"]
            for case in root.iter("testcase")
        }
        assert kinds["It breaks"] == ["failure"]
        assert kinds["Nobody can look"] == ["error"]
        assert kinds["It needs a moat"] == ["skipped"]
        assert kinds["It holds"] == []

    def test_the_source_is_linked_only_where_it_is_what_ran(self, tmp_path: Path) -> None:
        document = everything()
        document["suite"]["commit"] = "another"
        assert "blob" not in junit(document, tmp_path)


# The published form of CTRF 1.0.0, as far as we write it: required names first, then the others.
SHAPE: dict[str, dict[str, tuple[bool, Any]]] = {
    "report": {
        "reportFormat": (True, "CTRF"),
        "specVersion": (True, re.compile(r"\d+\.\d+\.\d+")),
        "results": (True, dict),
        "reportId": (False, re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")),
        "runId": (False, re.compile(r".+")),
        "timestamp": (False, str),
        "generatedBy": (False, str),
        "extra": (False, dict),
    },
    "results": {
        "tool": (True, dict),
        "summary": (True, dict),
        "tests": (True, list),
        "environment": (False, dict),
        "extra": (False, dict),
    },
    "tool": {"name": (True, re.compile(r".+")), "version": (False, str), "extra": (False, dict)},
    "summary": {
        **dict.fromkeys(("tests", "passed", "failed", "skipped", "pending", "other", "start", "stop"), (True, int)),
        **dict.fromkeys(("flaky", "suites", "duration"), (False, int)),
        "extra": (False, dict),
    },
    "test": {
        "name": (True, re.compile(r"(?s).+")),
        "status": (True, re.compile("passed|failed|skipped|pending|other")),
        "duration": (True, int),
        "testId": (False, re.compile(r"(?s).+")),
        "start": (False, int),
        "stop": (False, int),
        "suite": (False, list),
        "message": (False, str),
        "line": (False, int),
        "rawStatus": (False, str),
        "tags": (False, list),
        "labels": (False, dict),
        "type": (False, str),
        "filePath": (False, str),
        "attachments": (False, list),
        "steps": (False, list),
        "extra": (False, dict),
    },
    "step": {
        "name": (True, str),
        "status": (True, re.compile("passed|failed|skipped|pending|other")),
        "extra": (False, dict),
    },
    "attachment": {
        "name": (True, str),
        "contentType": (True, str),
        "path": (True, str),
        "extra": (False, dict),
    },
    "environment": {
        **dict.fromkeys(("reportName", "appName", "appVersion", "buildId", "buildName", "buildUrl", "repositoryName", "repositoryUrl", "commit", "branchName", "osPlatform", "osRelease", "osVersion", "testEnvironment"), (False, str)),
        "buildNumber": (False, int),
        "healthy": (False, bool),
        "extra": (False, dict),
    },
}  # fmt: skip


def misshapen(kind: str, found: dict[str, Any]) -> Iterator[str]:
    """Yield what the published form does not allow."""
    shape = SHAPE[kind]
    yield from (f"{kind}: {name} is not known" for name in found if name not in shape)
    for name, (required, wanted) in shape.items():
        if name not in found:
            if required:
                yield f"{kind}: {name} is missing"
            continue
        value = found[name]
        if isinstance(wanted, re.Pattern):
            right = isinstance(value, str) and wanted.fullmatch(value) is not None
        elif isinstance(wanted, type):
            right = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
        else:
            right = value == wanted
        if not right:
            yield f"{kind}: {name} is {value!r}"


class TestCtrf:
    @BOTH
    def test_it_has_the_published_form(self, make: Document, tmp_path: Path) -> None:
        found = json.loads(ctrf(make(), tmp_path))
        results = found["results"]
        wrong = [
            *misshapen("report", found),
            *misshapen("results", results),
            *misshapen("tool", results["tool"]),
            *misshapen("summary", results["summary"]),
            *misshapen("environment", results["environment"]),
        ]
        for test in results["tests"]:
            wrong += misshapen("test", test)
            wrong += [line for one in test["steps"] for line in misshapen("step", one)]
            wrong += [line for one in test["attachments"] for line in misshapen("attachment", one)]
            assert test.get("suite", ["x"]), "an empty suite is not allowed"
            assert all(test.get("labels", {"x": 1}).values()), "nor an empty label"
        assert not wrong

    def test_what_nobody_saw_neither_passed_nor_failed(self, tmp_path: Path) -> None:
        results = json.loads(ctrf(everything(), tmp_path))["results"]
        status = {one["name"]: one["status"] for one in results["tests"]}
        assert status["It holds"] == "passed"
        assert status["It breaks"] == "failed"
        assert status["Nobody can look"] == "other"
        assert status["It needs a moat"] == "skipped"
        counted = {
            name: results["summary"][name] for name in ("passed", "failed", "other", "skipped")
        }
        assert counted == {"passed": 3, "failed": 1, "other": 1, "skipped": 1}
        assert not results["environment"]["healthy"]

    def test_the_same_run_has_the_same_id(self, tmp_path: Path) -> None:
        one, other = (json.loads(ctrf(everything(), tmp_path)) for _ in range(2))
        assert one["reportId"] == other["reportId"]


class TestMarkdown:
    def test_the_summary_begins_with_the_answer(self, tmp_path: Path) -> None:
        told = summary(everything(), tmp_path).splitlines()
        assert told[0] == "# ❌ Violation: PGO conformance"
        assert told[2] == "**A promise was broken in 1 of 5 scenarios.**"
        whole = "\n".join(told)
        assert "**It breaks** – Castles" in whole
        assert (
            "| It breaks | the primary Service | new sessions | 63.20 to 64.10 s | 30 s | violated |"
            in whole
        )
        assert "| It breaks | sync | 3 | 100 | violated |" in whole
        assert "**Gate release not met, 1 reason**" in whole
        assert "missing-capability" in whole.replace("\\", "")

    def test_a_comment_can_be_found_again_and_compares_with_the_last_run(
        self, tmp_path: Path
    ) -> None:
        before = tmp_path / "20261101T000000Z-eks-1111"
        before.mkdir()
        (before / "verdict.json").write_text(json.dumps(built([scenario("It breaks")])))
        now = everything()
        told = comment(now, tmp_path / now["run"]).splitlines()
        assert told[0] == MARKER
        assert "- worse: It breaks: pass → violation" in told

    def test_on_the_stand_in_both_say_that_it_is_no_evidence(self, tmp_path: Path) -> None:
        document = built([scenario()], subject=Subject("local", stand_in=True))
        for view in (summary, comment):
            assert "> This ran on the stand-in cluster" in view(document, tmp_path)

    def test_nothing_of_others_becomes_markup_or_calls_anybody(self, tmp_path: Path) -> None:
        for view in (summary, comment):
            told = view(hostile(), tmp_path)
            outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", told)  # code shows what it holds
            outside = re.sub(r"(?m)^ {6}.*$", "", outside)  # so does an indented block
            assert "<script" not in outside
            assert "<img" not in outside
            assert "@somebody" not in outside
            assert not re.search(r"(?<!\\)\[x\]\(", outside)
            assert "://evil" not in outside
            assert "\x1b" not in told

    def test_a_cell_of_a_table_stays_one_cell(self, tmp_path: Path) -> None:
        name = "a | b \n c"
        document = built([disruptive(name)])
        (row,) = (
            line for line in summary(document, tmp_path).splitlines() if "1.50 to 1.75" in line
        )
        assert len(re.findall(r"(?<!\\)\|", row)) == 7

    @pytest.mark.parametrize("given", ["a`b", "``", "`", "plain", "``` x"])
    def test_code_holds_any_backticks(self, given: str) -> None:
        told = code(given)
        fence = re.match("`+", told)
        assert fence is not None
        assert fence[0] not in told[len(fence[0]) : -len(fence[0])].replace(" ", "x") or len(
            fence[0]
        ) > max(map(len, re.findall("`+", given)), default=0)
        assert given.strip() in told

    def test_text_is_escaped(self) -> None:
        assert text("a|b *c* <d> @e") == r"a\|b \*c\* &lt;d&gt; &#64;e"

    def test_a_summary_never_grows_over_what_is_accepted(self, tmp_path: Path) -> None:
        names = [f"{n} " + "long " * 60 for n in range(4000)]
        made = [scenario(name, "violation", reason=f"{name}\n" * 30) for name in names]
        document = built(made, deselected=tuple({"id": n, "reason": n} for n in names))
        assert len(summary(document, tmp_path).encode()) < 1024 * 1024
        assert len(comment(document, tmp_path)) < 65_536

    def test_it_is_appended_to_what_other_steps_wrote(self, tmp_path: Path) -> None:
        list(write_views(everything(), tmp_path, tmp_path))
        file = tmp_path / "step"
        file.write_text("before\n")
        append_summary(tmp_path, file)
        assert file.read_text().startswith("before\n# ❌ Violation")


_SAMPLE = re.compile(
    r'(?P<name>[a-z_]+)\{(?P<labels>(?:[a-z0-9_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\} '
    r"(?P<value>-?[0-9.]+|\+Inf)"
)


def samples(told: str) -> dict[str, list[tuple[dict[str, str], str]]]:
    """Parse the text format, strictly; every series once, every metric with HELP and TYPE."""
    found: dict[str, list[tuple[dict[str, str], str]]] = {}
    announced: list[str] = []
    seen: set[tuple[str, str]] = set()
    assert told.endswith("\n")
    for line in told.splitlines():
        if line.startswith("# HELP "):
            announced.append(line.split()[2])
            continue
        if line.startswith("# TYPE "):
            assert line == f"# TYPE {announced[-1]} gauge"
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample, line
        assert sample["name"] == announced[-1], "the samples of a metric stand together"
        assert (sample["name"], sample["labels"]) not in seen
        seen.add((sample["name"], sample["labels"]))
        labels = dict(re.findall(r'([a-z0-9_]+)="((?:[^"\\]|\\.)*)"', sample["labels"]))
        found.setdefault(sample["name"], []).append((labels, sample["value"]))
    assert len(announced) == len(set(announced)) == len(found)
    return found


class TestPrometheus:
    @BOTH
    def test_it_can_be_parsed(self, make: Document, tmp_path: Path) -> None:
        found = samples(prometheus(make(), tmp_path))
        verdicts = {labels["verdict"]: v for labels, v in found["pgo_conformance_run_verdict"]}
        assert verdicts == {"pass": "0", "violation": "1", "inconclusive": "0"}

    def test_bounds_budget_and_losses_can_be_alerted_on(self, tmp_path: Path) -> None:
        found = samples(prometheus(everything(), tmp_path))

        def of(metric: str, **wanted: str) -> list[str]:
            return [
                value
                for labels, value in found[f"pgo_conformance_{metric}"]
                if wanted.items() <= labels.items()
            ]

        service = {"scenario": "It breaks", "path": "the primary Service"}
        assert of("recovery_lower_seconds", **service) == ["63.2"]
        assert of("recovery_upper_seconds", **service) == ["64.1"]
        assert of("recovery_budget_seconds", **service) == ["30"]
        assert of("recovery_upper_seconds", scenario="It breaks", path="PgBouncer") == ["+Inf"]
        assert of("lost_writes", scenario="It breaks") == ["3"]
        assert of("lost_writes_allowed", scenario="It breaks") == ["0"]
        assert of("scenario_outcome", scenario="It breaks", outcome="violation") == ["1"]
        assert of("scenario_outcome", scenario="It breaks", outcome="pass") == ["0"]
        assert of("scenario_duration_seconds", scenario="It breaks") == ["12.5"]
        assert not of("scenario_duration_seconds", scenario="It needs a moat")
        assert of("run_evidence") == ["1"]
        assert of("run_gate_met") == ["0"]
        assert of("run_cost_dollars") == ["2.25"]
        labels, _ = found["pgo_conformance_run_verdict"][0]
        assert {"provider": "eks", "pgo": "6.0.1", "postgresql": "17.6"}.items() <= labels.items()

    def test_labels_are_escaped(self, tmp_path: Path) -> None:
        name = 'a "quoted" \\ back\nslash'
        found = samples(prometheus(built([scenario(name)]), tmp_path))
        told = {labels["scenario"] for labels, _ in found["pgo_conformance_scenario_outcome"]}
        assert told == {r"a \"quoted\" \\ back slash"}

    def test_no_sample_carries_a_time_and_none_is_there_twice(self, tmp_path: Path) -> None:
        again = scenario("It holds", took_s=3.0)
        found = samples(prometheus(built([scenario("It holds"), again]), tmp_path))
        assert [v for _, v in found["pgo_conformance_scenario_duration_seconds"]] == ["3"]


def test_no_secret_reaches_any_view(tmp_path: Path) -> None:
    """Not one that JSON, XML, HTML or a shell writes otherwise than it is, either."""
    canaries = [
        Secret(f"canary-{n}-{odd}-end{n}") for n, odd in enumerate(['"\\', "<&>'", "é🐘", "`|$"])
    ]
    told = " and ".join(canaries)
    found = finding("no-acknowledged-write-lost", "violated", acknowledged=1, lost=1)
    found |= {"sentence": told, "operations": [told]}
    hurt = disruptive(
        f"It leaks {told}",
        "violation",
        reason=f"could not connect with {told}",
        findings=[found, recovered()],
    )
    hurt["steps"][0]["text"] = f"a password of {told}"
    hurt["faults"][0]["proof"] = told
    document = built([hurt], settings={"password": told}, rerun=f"pytest {told}")
    paths = list(write_views(document, tmp_path, tmp_path))
    assert len(paths) == len(VIEWS)
    for path in paths:
        text = path.read_text("utf-8")
        assert "********" in text, path.name
        assert not re.search(r"canary|end\d", text), path.name


def test_every_hostile_text_is_in_the_documents_that_the_tests_use() -> None:
    assert {one["reason"] for one in hostile()["scenarios"]} == set(HOSTILE)
