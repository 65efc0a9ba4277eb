"""Trend, diff and merge: what they find, what they do not, and what they say of it."""

from __future__ import annotations

import html.parser
import io
import json
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pytest_pgo_eks import report
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.report.__main__ import main
from pytest_pgo_eks.report.comparing import differences
from pytest_pgo_eks.report.merging import markdown, merged
from pytest_pgo_eks.report.store import kept_at
from pytest_pgo_eks.report.trend import flicker
from pytest_pgo_eks.report.trend.changes import changes
from pytest_pgo_eks.report.trend.document import as_json, trend
from pytest_pgo_eks.report.trend.page import page
from pytest_pgo_eks.report.trend.series import Point, Series, records_of, series_of

from .runs import Json, run_document, run_folder, scenario, write_run

NAME = "The primary pod is deleted"


def schema(name: str) -> Any:
    text = (Path(report.__file__).parent / name).read_text("utf-8")
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    return json.loads(text)


def series(values: list[float], name: str = "rto_s, p") -> Series:
    points = [
        Point(f"run {n}", "", value, value + 0.1, "pass", (None,) * 5)
        for n, value in enumerate(values)
    ]
    return Series("eks", "F", "S", "rto_s", name, points)


def around(level: float, count: int, seed: int) -> list[float]:
    chance = random.Random(seed)
    return [level + chance.expovariate(2) for _ in range(count)]


def test_a_change_of_level_is_found_where_it_is() -> None:
    one = series([*around(10, 15, 1), *around(14, 10, 2)])
    (change,) = changes([one]).values()
    assert change.at == 15
    assert change.worse
    assert change.before == pytest.approx(10.4, abs=0.4)
    assert change.after == pytest.approx(14.4, abs=0.4)
    assert change.confidence > 0.99
    assert change.since == "run 15"


def test_the_newest_of_several_changes_is_told() -> None:
    one = series([*around(10, 15, 1), *around(14, 15, 2), *around(9, 15, 3)])
    (change,) = changes([one]).values()
    assert change.at == 30
    assert not change.worse
    assert change.before == pytest.approx(14.4, abs=0.4)


def test_noise_one_outlier_and_too_few_runs_are_no_change() -> None:
    noise = series(around(10, 40, 4), "noise")
    outlier = series([*around(10, 20, 5), 500.0, *around(10, 3, 6)], "outlier")
    few = series([1.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0], "few")
    same = series([3.0] * 30, "same")
    assert changes([noise, outlier, few, same]) == {}


def test_a_hundred_series_of_noise_raise_no_alarm() -> None:
    """Uncorrected, five of a hundred would at a confidence of 95 %."""
    assert len(changes([series(around(10, 25, 100 + n), str(n)) for n in range(100)])) <= 1


def test_the_same_runs_give_the_same_answer() -> None:
    one = series([*around(10, 12, 1), *around(11, 12, 2)])
    assert changes([one]) == changes([one])


def nightly(count: int, change: Callable[[int, Json], None] | None = None) -> list[Json]:
    found = []
    for day in range(count):
        slow = 8.0 if day >= 15 else 0.0
        run = run_document(
            [
                scenario(
                    NAME,
                    rto={"the primary Service": (2.0, 2.2), "PgBouncer": (15 + slow, 15.5 + slow)},
                    lost=0,
                    stale_s=0.5,
                ),
                scenario("Flickers", "violation" if day % 7 == 3 else "pass"),
                scenario("Unlucky", "inconclusive" if day % 5 == 0 else "pass"),
                scenario("Broken", "violation"),
            ],
            day=day,
            pgo="6.1.0" if day >= 15 else "6.0.1",
        )
        if change:
            change(day, run)
        found.append(run)
    return found


def test_what_changed_together_with_it_is_told() -> None:
    found = trend(nightly(25))
    (change,) = found.changes.values()
    assert change.together_with == ("pgo 6.0.1 → 6.1.0",)
    (key,) = found.changes
    assert "PgBouncer" in key
    told = as_json(found)
    (mine,) = [one for one in told["series"] if one["change"]]
    assert (mine["measure"], mine["name"]) == ("rto_s", "rto_s, PgBouncer")
    assert mine["change"]["worse"] is True
    assert len(mine["points"]) == 25
    json.dumps(told, allow_nan=False)
    jsonschema.validate(told, schema("trend/trend.schema.json"))


def test_the_product_and_the_infrastructure_flicker_apart() -> None:
    records = {one.scenario: one for one in records_of(nightly(14))}
    assert flicker.product(records["Flickers"]) == flicker.Rate(2, 14)
    assert flicker.infrastructure(records["Flickers"]) == flicker.Rate(0, 14)
    assert flicker.product(records["Unlucky"]) == flicker.Rate(0, 14)
    assert flicker.infrastructure(records["Unlucky"]) == flicker.Rate(3, 14)
    assert flicker.product(records["Broken"]).hits == 0, "always violated is broken, no flicker"
    assert flicker.broken(records["Broken"])
    assert not flicker.broken(records["Flickers"])


def test_what_differs_between_versions_is_no_flicker() -> None:
    """Violated on one version and passed on the next is a repair."""

    def repaired(day: int, run: Json) -> None:
        run["scenarios"][1]["verdict"] = "pass" if day >= 15 else "violation"

    (record,) = [one for one in records_of(nightly(30, repaired)) if one.scenario == "Flickers"]
    assert flicker.product(record).hits == 0


def test_places_do_not_mix() -> None:
    runs = [
        run_document([scenario(NAME)], provider=p, day=d) for d, p in enumerate(["eks", "kind"])
    ]
    assert {one.lane for one in series_of(runs)} == {"eks", "kind"}
    local = run_document([scenario(NAME)], provider="local")
    assert series_of([local])[0].lane == "local (stand-in)"


# -- the page


class Look(html.parser.HTMLParser):
    """Remembers tags, and demands that every one is closed."""

    EMPTY = frozenset({"meta", "path", "circle", "polyline", "br", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def whole(self, text: str) -> list[tuple[str, dict[str, str | None]]]:
        self.feed(text)
        self.close()
        assert self._open == []
        return self.seen


def test_the_page_shows_everything_and_needs_nothing() -> None:
    text = page(trend(nightly(25), ["x/verdict.json: cut off"]))
    seen = Look().whole(text)
    tags = {tag for tag, _ in seen}
    assert not tags & {"script", "link", "img", "iframe", "object", "form"}
    for _, attributes in seen:
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes)
    assert "1 figure became worse" in text
    assert "pgo 6.0.1 → 6.1.0" in text
    assert "x/verdict.json: cut off" in text
    drawn = [attributes for tag, attributes in seen if tag == "svg"]
    assert len(drawn) == len(trend(nightly(25)).series) + 1
    assert all(one["role"] == "img" and "runs" in str(one["aria-label"]) for one in drawn)
    assert "default-src 'none'" in text


def test_names_of_others_are_text_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "<script>alert(1)</script>\"' 💥\u202e\x1b[31m password=canary123"
    runs = [run_document([scenario(evil, rto={evil: (1, 2)})], day=day) for day in range(2)]
    for run in runs:
        write_run(tmp_path / "runs", run)
    assert main(["trend", str(tmp_path / "runs"), "--to", str(tmp_path)]) == 0
    text = (tmp_path / "trend.html").read_text("utf-8")
    assert not any(tag == "script" for tag, _ in Look().whole(text))
    assert main(["merge", str(tmp_path / "runs"), "--to", str(tmp_path)]) == 0
    Look().whole((tmp_path / "matrix.html").read_text("utf-8"))
    one, other = (str(tmp_path / "runs" / run["run"]) for run in runs)
    capsys.readouterr()
    assert main(["diff", one, other]) == 0
    told = capsys.readouterr().out
    assert "canary123" not in told
    assert main(["verify", one]) == 1
    told += capsys.readouterr().out
    assert not re.search("[\x1b\u202e]", told)
    for file in ("trend.html", "trend.json", "matrix.json", "matrix.md", "matrix.html"):
        said = (tmp_path / file).read_text("utf-8")
        assert "canary123" not in said
        assert file.endswith("json") or not re.search("[\x1b\u202e]", said)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in nightly(25):
        write_run(tmp_path / "runs", run)
    (tmp_path / "runs" / "cut").mkdir()
    (tmp_path / "runs" / "cut" / "verdict.json").write_text('{"schema":', "utf-8")
    assert main(["trend", str(tmp_path / "runs"), "--to", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert f"worse: Failover – {NAME}: rto_s, PgBouncer 15.25 → 23.25 since 20260317" in told
    assert "note: not read: " in told
    assert json.loads((tmp_path / "out" / "trend.json").read_text("utf-8"))["runs"]
    (tmp_path / "empty").mkdir()
    assert main(["trend", str(tmp_path / "empty")]) == 4
    assert "there is no run here" in capsys.readouterr().err
    assert main(["trend", str(tmp_path / "nowhere")]) == 4
    assert main(["trend", str(tmp_path / "runs"), "--confidence", "95"]) == 4


# -- where runs are kept


def test_a_folder_is_read_to_its_depth_and_bundles_too(tmp_path: Path, capsys: Any) -> None:
    place = tmp_path / "kept"
    folder = run_folder(place / "a" / "b")
    assert main(["bundle", str(folder), "-o", str(place / "one.tar.gz")]) == 0
    capsys.readouterr()
    (place / "latest").symlink_to(folder)
    (place / "damaged.tar.gz").write_bytes(b"no")
    write_run(place / "c", run_document([scenario(NAME)], day=-5))
    kept = kept_at(str(place))
    assert [run["subject"]["provider"] for run in kept.runs] == ["eks", "local"], (
        "oldest first, once"
    )
    assert len(kept.unread) == 1
    assert "damaged.tar.gz" in kept.unread[0]
    assert len(kept_at(str(place), newest=1).runs) == 1


def test_time_zones_and_broken_clocks_change_no_order(tmp_path: Path) -> None:
    for name, began in (
        ("c", "2026-03-02T03:00:00+05:00"),
        ("b", "2026-03-01T23:00:00+00:00"),
        ("d", "2026-03-02T00:30:00"),
        ("a", "some time ago"),
        ("z", "9999-12-31T23:59:59+00:00"),
    ):
        write_run(tmp_path, {**run_document([scenario(NAME)], name=name), "began": began})
    assert [run["run"] for run in kept_at(str(tmp_path)).runs] == ["a", "c", "b", "d", "z"]
    trend(kept_at(str(tmp_path)).runs)


class FakeS3:
    """Answers as boto3's client does, and remembers what it was asked."""

    def __init__(self, objects: dict[str, bytes], refuse: str = "") -> None:
        self.objects, self.refuse = objects, refuse
        self.got: list[str] = []

    def get_paginator(self, name: str) -> FakeS3:
        assert name == "list_objects_v2"
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> Any:  # noqa: N803 - as boto3 has them
        assert Bucket == "nightly"
        if self.refuse:
            raise client_error(self.refuse)
        keys = [key for key in self.objects if key.startswith(Prefix)]
        when = datetime(2026, 1, 1, tzinfo=UTC)
        found = [
            {"Key": key, "Size": len(self.objects[key]), "LastModified": when + timedelta(hours=n)}
            for n, key in enumerate(keys)
        ]
        # Pages of two, and one without contents, as an empty listing has it.
        yield from ({"Contents": found[i : i + 2]} for i in range(0, len(found), 2))
        yield {}

    def get_object(self, *, Bucket: str, Key: str) -> Any:  # noqa: N803
        assert Bucket == "nightly"
        self.got.append(Key)
        if self.objects[Key] == b"gone":
            raise client_error("NoSuchKey")
        return {"Body": io.BytesIO(self.objects[Key])}


def client_error(code: str) -> Exception:
    from botocore.exceptions import ClientError

    error: Exception = ClientError(
        {"Error": {"Code": code, "Message": "password=canary555"}}, "GetObject"
    )
    return error


def test_a_bucket_is_read_page_by_page(tmp_path: Path) -> None:
    runs = {f"eks/{n}/verdict.json": json.dumps(run) for n, run in enumerate(nightly(5))}
    objects = {key: text.encode() for key, text in runs.items()}
    others = {"eks/0/run.log": b"x", "eks/x/verdict.json": b"{", "eks/y/verdict.json": b"gone"}
    s3 = FakeS3({**others, **objects, "other/verdict.json": b"x"})
    kept = kept_at("s3://nightly/eks/", client=s3)
    assert len(kept.runs) == 5
    assert len(kept.unread) == 2
    assert not any("canary555" in line for line in kept.unread)
    assert all(key.startswith("eks/") and key.endswith("verdict.json") for key in s3.got)
    few = FakeS3(objects)
    assert len(kept_at("s3://nightly/eks", newest=2, client=few).runs) == 2
    assert few.got == ["eks/3/verdict.json", "eks/4/verdict.json"], "only what is needed is fetched"


def test_a_bucket_that_refuses_is_told_in_one_line() -> None:
    with pytest.raises(UsageProblem, match=r"s3://nightly/x: .*AccessDenied") as refused:
        kept_at("s3://nightly/x", client=FakeS3({}, refuse="AccessDenied"))
    assert "canary555" not in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(UsageProblem, match="name a bucket"):
        kept_at("s3://")


# -- diff


def test_what_changed_between_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = run_document(
        [
            scenario(NAME, rto={"PgBouncer": (15.0, 15.4)}, lost=0, deviations=["D1"]),
            scenario("Steady", rto={"PgBouncer": (3.0, 3.4)}),
            scenario("Gone"),
        ],
        manifest_sha256="a" * 64,
        images=({"container": "database", "image": "pg:17", "digest": "sha256:1"},),
    )
    after = run_document(
        [
            scenario(NAME, rto={"PgBouncer": (22.0, 22.4)}, lost=0),
            scenario("Steady", "violation", reason="x", rto={"PgBouncer": (3.2, 3.9)}),
            scenario("New"),
        ],
        day=1,
        pgo="6.1.0",
        manifest_sha256="b" * 64,
        images=({"container": "database", "image": "pg:17", "digest": "sha256:2"},),
    )
    found = [(one.about, str(one)) for one in differences(before, after)]
    assert ("subject", "pgo: 6.0.1 → 6.1.0") in found
    assert ("subject", f"manifest_sha256: {'a' * 64} → {'b' * 64}") in found
    assert ("images", "database: pg:17 sha256:1 → pg:17 sha256:2") in found
    assert ("verdict", "Failover – Steady: pass → violation") in found
    assert ("verdict", "Failover – New: nothing → pass") in found
    assert ("verdict", "Failover – Gone: pass → nothing") in found
    assert ("deviations", "D1: did it otherwise → nothing") in found
    figures = [text for about, text in found if about == "figure"]
    assert figures == [f"Failover – {NAME}: rto_s, PgBouncer: 15 to 15.4 → 22 to 22.4"]
    assert found.index(("verdict", "Failover – Steady: pass → violation")) < found.index(
        ("verdict", "Failover – New: nothing → pass")
    )
    one, other = write_run(tmp_path, before), write_run(tmp_path, after)
    assert main(["diff", str(one), str(other)]) == 0
    told = capsys.readouterr().out
    assert "subject:\n  pgo: 6.0.1 → 6.1.0\n" in told
    assert main(["diff", str(one), str(other), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["differences"]) == len(found)
    assert main(["diff", str(one), str(one)]) == 0
    assert "nothing differs" in capsys.readouterr().out
    assert main(["diff", str(one), str(tmp_path / "nowhere")]) == 4


# -- merge


def matrix(*verdicts: str) -> list[Json]:
    versions = [("6.0.1", "17.2"), ("6.0.1", "18.1"), ("6.1.0", "17.2"), ("6.1.0", "18.1")]
    return [
        run_document(
            [scenario(NAME, verdict, reason="because | of <b>"), scenario("Fine")],  # type: ignore[arg-type]
            pgo=pgo,
            postgresql=postgresql,
            name=f"run-{number}",
        )
        for number, (verdict, (pgo, postgresql)) in enumerate(zip(verdicts, versions, strict=False))
    ]


@pytest.mark.parametrize(
    ("verdicts", "expected", "verdict", "status"),
    [
        (["pass"] * 4, 4, "pass", 0),
        (["pass"] * 4, None, "pass", 0),
        (["pass", "violation", "pass", "inconclusive"], 4, "violation", 1),
        (["pass", "inconclusive"], 2, "inconclusive", 6),
        (["pass"] * 3, 4, "inconclusive", 6),
        ([], 4, "inconclusive", 6),
    ],
)
def test_a_matrix_is_as_good_as_its_worst_run_and_its_missing_ones(
    verdicts: list[str], expected: int | None, verdict: str, status: int, tmp_path: Path
) -> None:
    place = tmp_path / "runs"
    place.mkdir()
    for number, run in enumerate(matrix(*verdicts)):
        write_run(place / f"job-{number}", run)
    asked = [] if expected is None else ["--expect", str(expected)]
    assert main(["merge", str(place), "--to", str(tmp_path), *asked]) == status
    found = json.loads((tmp_path / "matrix.json").read_text("utf-8"))
    jsonschema.validate(found, schema("matrix.schema.json"))
    assert found["verdict"] == verdict
    assert len(found["cells"]) == len(verdicts)


def test_the_merged_report_says_what_broke_where(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    for run in matrix("inconclusive", "violation"):
        write_run(tmp_path / "runs", run)
    assert main(["merge", str(tmp_path / "runs"), "--to", str(tmp_path), "--expect", "3"]) == 1
    assert "1 of the 3 expected runs left no verdict" in capsys.readouterr().out
    told = (tmp_path / "matrix.md").read_text("utf-8")
    assert (tmp_path / "summary.md").read_text("utf-8") == told
    assert "| PGO | PostgreSQL | 1.34 on eks |" in told
    assert "| 6.0.1 | 18.1 | ❌ 1 of 2 |" in told
    assert f"Failover – {NAME} | PGO 6.0.1, PostgreSQL 18.1, Kubernetes 1.34 on eks" in told
    assert "because \\| of &lt;b&gt;" in told
    assert told.index("| violation |") < told.index("| inconclusive |")
    Look().whole((tmp_path / "matrix.html").read_text("utf-8"))


def test_a_run_that_cannot_be_read_lets_nothing_pass(tmp_path: Path, capsys: Any) -> None:
    write_run(tmp_path / "runs", matrix("pass")[0])
    (tmp_path / "runs" / "b").mkdir()
    (tmp_path / "runs" / "b" / "verdict.json").write_text("{}", "utf-8")
    assert main(["merge", str(tmp_path / "runs"), "--to", str(tmp_path)]) == 6
    assert "note: not read" in capsys.readouterr().out
    assert main(["merge", str(tmp_path / "nowhere")]) == 4
    assert "not read" in markdown(merged(matrix("pass"), unread=["x: cut off"]))
