"""The page: readable by everybody, dangerous to nobody, small enough to be mailed."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_pgo_eks.history import timeline
from pytest_pgo_eks.report.links import anchor
from pytest_pgo_eks.report.page.picture import redrawn
from pytest_pgo_eks.report.page.scenario import MOST
from pytest_pgo_eks.report.page.style import (
    DARK,
    DARK_PICTURE,
    LIGHT,
    LIGHT_PICTURE,
    PAIRS,
    STYLE,
)
from pytest_pgo_eks.report.page.whole import page
from pytest_pgo_eks.report.reading import load

from .accessible import contrast, parsed, problems
from .documents import FIRST, built, disruptive, everything, hostile, scenario

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">{}</svg>'


def words(html: str) -> str:
    root, _ = parsed(html)
    (body,) = (one for one in root.walk() if one.name == "body")
    return " ".join(body.words().split())


@pytest.mark.parametrize(
    "make",
    [everything, hostile, lambda: load(FIRST), lambda: built([]), lambda: built([scenario()])],
    ids=["everything", "hostile", "first version", "nothing", "one pass"],
)
def test_no_rule_of_accessibility_or_safety_is_broken(make: Any, tmp_path: Path) -> None:
    assert problems(page(make(), tmp_path)) == []


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda html: html.replace(' lang="en"', ""), "language"),
        (
            lambda html: html.replace("<h2", "<h4", 1).replace("</h2", "</h4", 1),
            "follows one of level 1",
        ),
        (lambda html: html.replace('scope="col"', "", 1), "has no scope"),
        (lambda html: html.replace("</main>", "<script>1</script></main>"), "<script >"),
        (lambda html: html.replace("<p ", '<p onclick="x" ', 1), "attribute onclick"),
        (lambda html: html.replace("<p ", '<p style="color:red" ', 1), "attribute style"),
        (lambda html: html.replace("</style>", "b{}</style>"), "own style sheet"),
        (lambda html: html.replace('href="#main"', 'href="#nowhere"'), "leads nowhere"),
        (lambda html: html.replace('href="#main"', 'href="javascript:x"'), "leads to"),
        (lambda html: html.replace("</section>", "", 1), "closes <section>"),
        (lambda html: html.replace(' aria-label="On this page"', ""), "no name"),
        (lambda html: html.replace("</main>", "<svg></svg></main>"), "neither named nor hidden"),
        (lambda html: html.replace("</main>", "<table></table></main>"), "no caption"),
    ],
)
def test_the_rules_find_what_they_are_for(spoil: Any, told: str, tmp_path: Path) -> None:
    found = problems(spoil(page(everything(), tmp_path)))
    assert any(told in line for line in found), found


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_every_text_has_enough_contrast(palette: dict[str, str]) -> None:
    weak = {
        pair: round(contrast(palette[pair[0]], palette[pair[1]]), 2)
        for pair in PAIRS
        if contrast(palette[pair[0]], palette[pair[1]]) < 4.5
    }
    assert not weak


def test_contrast_is_computed_as_it_is_defined() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_the_verdict_comes_first_and_then_what_broke(tmp_path: Path) -> None:
    told = words(page(everything(), tmp_path))
    order = [
        told.index(text)
        for text in (
            "Violation",
            "A promise was broken in 1 of 5 scenarios.",
            "PGO 6.0.1, PostgreSQL 17.6, Patroni 4.1.5, Kubernetes v1.34.2-eks-abc",
            "Passed 3",
            "What broke ✗ Violation It breaks",
            "at Then it stands",
            "Every scenario at a glance",
        )
    ]
    assert order == sorted(order)


def test_everything_that_the_document_holds_is_told(tmp_path: Path) -> None:
    told = words(page(everything(), tmp_path))
    for text in (
        "It needs a moat",
        "Gate release not met, 1 reason",
        "It breaks: a promise was broken",
        "It needs a moat: skipped",
        "level 4 is above 3",
        "1.50 to 1.75 s",
        "more than 20.00 s",
        "its UID is gone",
        "4,270",
        "three nodes",
        "host all all 0.0.0.0/0 trust",
        "as configured",
        "2.25 USD",
        "aws ec2 delete-volume",
        "us-east-1",
        "GitHub Actions 17",
        "automatic failover",
        "Not covered",
        "pytest --cluster=eks --pgo-seed=4 'features/failover/castle.feature::It breaks'",
    ):
        assert text in told, text


def test_a_run_on_the_stand_in_says_so_above_everything_else(tmp_path: Path) -> None:
    told = words(page(load(FIRST), tmp_path))
    assert "Not evidence. This ran on the stand-in cluster" in told[:300]
    assert "Not evidence" not in words(page(everything(), tmp_path))


def test_failed_scenarios_are_open_and_the_others_are_not(tmp_path: Path) -> None:
    root, _ = parsed(page(everything(), tmp_path))
    folds = [one for one in root.walk() if one.name == "details"]
    opened = [one.children[0].words() for one in folds if "open" in one.attributes]
    assert ["It breaks" in words or "Nobody can look" in words for words in opened] == [True, True]
    assert len(folds) > 4


def test_every_scenario_can_be_addressed_though_names_repeat(tmp_path: Path) -> None:
    names = ["same", "same ", "SAME", "säme"]
    made = [scenario(name, id=f"features/a.feature::{name}") for name in names]
    assert problems(page(built(made), tmp_path)) == []


def run_with_picture(tmp_path: Path, svg: str) -> str:
    folder = tmp_path / "scenarios" / "castle"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "timeline.svg").write_text(svg, "utf-8")
    return page(built([disruptive()]), tmp_path)


def history(operations: int) -> Any:
    """Return a clean run of writes, as columns."""
    benchmarks = str(Path(__file__).resolve().parents[2] / "benchmarks")
    if benchmarks not in sys.path:
        sys.path.append(benchmarks)
    return importlib.import_module("checkers").generate(operations)


def test_ten_thousand_operations_fit_into_200_kib(tmp_path: Path) -> None:
    html = run_with_picture(tmp_path, timeline.svg(history(10_000), "ten thousand"))
    assert '<figure class="timeline"' in html
    assert "<path" in html
    assert len(html.encode()) <= 200 * 1024
    assert problems(html) == []


def test_the_page_knows_every_class_and_colour_of_the_pictures() -> None:
    """They come without their own style sheet, which the page's policy would not let in."""
    own = timeline._STYLE
    classes = set(re.findall(r"\.([a-z]\w*)\{", own))
    assert len(classes) > 5
    assert not [name for name in classes if f".timeline .{name}{{" not in STYLE]
    colours = set(re.findall(r"--(\w+):", own))
    for palette, picture in ((LIGHT, LIGHT_PICTURE), (DARK, DARK_PICTURE)):
        assert colours <= palette.keys() | picture.keys()
    assert {name: LIGHT_PICTURE[name] for name in sorted(colours & LIGHT_PICTURE.keys())} == {
        name: re.search(rf"--{name}:(#\w+)", own)[1]  # type: ignore[index]
        for name in sorted(colours & LIGHT_PICTURE.keys())
    }


@pytest.mark.parametrize(
    "attack",
    [
        "<script>alert(1)</script>",
        '<path d="M0 0" onclick="alert(1)"/>',
        '<a href="javascript:alert(1)"><text>x</text></a>',
        '<image href="http://evil.example/x.png"/>',
        '<use href="#a"/>',
        "<foreignObject><body>x</body></foreignObject>",
        '<rect fill="url(http://evil.example/#x)"/>',
        '<rect style="background:url(http://evil.example/)"/>',
        '<rect class="a&quot; onload=&quot;alert(1)"/>',
        "<style>*{background:url(http://evil.example)}</style>",
        '<set attributeName="href" to="javascript:alert(1)"/>',
        '<svg onload="alert(1)"></svg>',
        "<text>&lt;script&gt;alert(1)&lt;/script&gt;</text>",
    ],
)
def test_a_picture_brings_nothing_along_that_runs_or_loads(attack: str, tmp_path: Path) -> None:
    svg = SVG.format(f'<rect x="1" width="2" fill="var(--ok)"/>{attack}')
    html = run_with_picture(tmp_path, svg)
    assert '<rect x="1" width="2" fill="var(--ok,#2563eb)"/>' in html
    assert "evil.example" not in html
    assert problems(html) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<svg",
        "<html/>",
        SVG.format("")[:-3],
        '<!DOCTYPE svg [<!ENTITY a "aaaa">]>' + SVG.format("&a;"),
        SVG.format("").replace("0 0 9 9", "0&quot; onload=&quot;alert(1)"),
    ],
    ids=["empty", "cut", "html", "cut at the end", "entities", "view box"],
)
def test_what_is_no_picture_of_ours_is_left_out(text: str) -> None:
    assert redrawn(text, "x") is None


def test_a_file_outside_of_the_run_is_not_taken_for_a_picture(tmp_path: Path) -> None:
    (tmp_path / "timeline.svg").write_text(SVG.format("<text>elsewhere</text>"))
    run = tmp_path / "run"
    run.mkdir()
    (run / "timeline.svg").symlink_to(tmp_path / "timeline.svg")
    for name in ("../timeline.svg", str(tmp_path / "timeline.svg"), "timeline.svg"):
        html = page(built([disruptive(attachments=[name])]), run)
        assert "elsewhere" not in html


def test_links_to_files_stay_inside_the_run(tmp_path: Path) -> None:
    names = ["scenarios/a b/ok.txt", "../out.txt", "/etc/passwd", "file:///x.txt", "C:\\x.txt"]
    html = page(built([scenario(attachments=names)]), tmp_path)
    assert re.findall(r'href="([^"#]+\.txt|[^"#]*passwd)"', html) == ["scenarios/a%20b/ok.txt"]


def test_ten_thousand_scenarios_are_told_without_a_page_about_each(tmp_path: Path) -> None:
    made = [scenario(f"Number {n}") for n in range(10_000)]
    made[7_777] = scenario("The one", "violation")
    html = page(built(made), tmp_path)
    assert "A promise was broken in 1 of 10,000 scenarios." in html
    assert html.count("<details") < MOST + 50
    assert "more scenarios, in verdict.json." in html
    # Every link leads somewhere, and the one that matters to its evidence.
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    assert f'<div class="inner" id="{anchor(made[7_777]["id"])}">' in html


def test_earlier_runs_are_compared_and_broken_ones_passed_over(tmp_path: Path) -> None:
    def keep(name: str, scenarios: list[Any], **more: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "verdict.json").write_text(json.dumps(built(scenarios, name=name, **more)))
        return folder

    keep("20261120T000000Z-eks-1111", [scenario("It holds", "violation"), scenario("It breaks")])
    keep("20261121T000000Z-eks-2222", [scenario("It holds", "inconclusive"), scenario("It breaks")])
    (tmp_path / "20261122T000000Z-eks-3333").mkdir()
    (tmp_path / "20261122T000000Z-eks-3333" / "verdict.json").write_text("{")
    keep("20261129T000000Z-eks-4444", [scenario("It comes later")])
    now = everything()
    told = words(page(now, tmp_path / now["run"]))
    assert "earlier runs, oldest first: violation, inconclusive" in told
    assert "▼ worse It breaks : pass → violation" in told
    assert "▲ better It holds : inconclusive → pass" in told
    assert "It comes later" not in told
    assert told.count("2026-11-23 20:31") >= 2
