"""The page in headless Chromium: what no parser can tell.

Skipped, and said so, where the machine has no Chromium; the other tests hold without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pgo_eks.history import timeline
from pytest_pgo_eks.report.page.whole import page

from .chromium import Browser, browser, program
from .documents import everything, hostile
from .test_page import history

pytestmark = [
    pytest.mark.skipif(program() is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.timeout(120),
]

SCREENS = {"phone": (390, 844), "laptop": (1440, 900), "wall": (2560, 1440)}

# What is seen of every text, and what it lies on, with transparency taken into account.
CONTRAST = """
(() => {
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = element => {
    for (let one = element; one; one = one.parentElement) {
      const found = rgb(getComputedStyle(one).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const weak = [];
  let seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const element = node.parentElement;
    if (!node.textContent.trim() || element.closest('svg, .hid, .skip')) continue;
    if (!element.checkVisibility({contentVisibilityAuto: true})) continue;
    seen += 1;
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(ground(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) weak.push([contrast.toFixed(2), element.className, node.textContent.slice(0, 40)]);
  }
  return JSON.stringify({seen, weak});
})()
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page of everything, a picture in it, and one of attacks."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "scenarios" / "castle").mkdir(parents=True)
    picture = timeline.svg(history(2_000), "A picture")
    (folder / "scenarios" / "castle" / "timeline.svg").write_text(picture, "utf-8")
    (folder / "everything.html").write_text(page(everything(), folder), "utf-8")
    (folder / "hostile.html").write_text(page(hostile(), folder), "utf-8", errors="replace")
    return folder


@pytest.mark.parametrize("name", ["everything", "hostile"])
def test_nothing_is_loaded_nothing_runs_and_no_policy_is_broken(
    chromium: Browser, pages: Path, name: str
) -> None:
    file = pages / f"{name}.html"
    chromium.looks(*SCREENS["laptop"])
    chromium.open(file)
    assert chromium.requests() == [file.resolve().as_uri()]
    assert chromium.complaints() == []
    assert chromium.ask("document.scripts.length") == 0
    assert chromium.ask("document.styleSheets.length") == 1, "the policy let the style sheet in"
    assert chromium.ask(
        "getComputedStyle(document.querySelector('.band')).backgroundColor"
    ) not in {
        "rgba(0, 0, 0, 0)",
        "rgb(255, 255, 255)",
    }


@pytest.mark.parametrize("name", ["everything", "hostile"])
@pytest.mark.parametrize("screen", SCREENS)
def test_no_screen_has_to_be_scrolled_sideways(
    chromium: Browser, pages: Path, screen: str, name: str
) -> None:
    width, height = SCREENS[screen]
    chromium.looks(width, height)
    chromium.open(pages / f"{name}.html")
    assert chromium.ask("document.documentElement.scrollWidth") <= width
    verdict = chromium.ask("document.querySelector('h1').getBoundingClientRect().bottom")
    assert verdict < height / 2, "the verdict is seen without a touch"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("screen", ["phone", "laptop"])
def test_every_text_that_is_seen_has_enough_contrast(
    chromium: Browser, pages: Path, screen: str, dark: bool
) -> None:
    chromium.looks(*SCREENS[screen], dark=dark)
    chromium.open(pages / "everything.html")
    found = json.loads(chromium.ask(CONTRAST))
    assert found["seen"] > 200
    assert found["weak"] == []


def test_dark_and_light_differ_and_paper_is_light(chromium: Browser, pages: Path) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    seen = {}
    for name, dark, media in (
        ("light", False, "screen"),
        ("dark", True, "screen"),
        ("paper", True, "print"),
    ):
        chromium.looks(*SCREENS["laptop"], dark=dark, media=media)
        chromium.open(pages / "everything.html")
        seen[name] = chromium.ask(ground)
    assert seen["light"] == seen["paper"] != seen["dark"]


def test_a_link_opens_what_is_folded_away(chromium: Browser, pages: Path) -> None:
    chromium.looks(*SCREENS["laptop"])
    chromium.open(pages / "everything.html")
    name = chromium.ask("document.querySelector('details:not([open]) > .inner[id]').id")
    target = f"document.getElementById({json.dumps(name)})"
    assert not chromium.ask(f"{target}.closest('details').open")
    chromium.ask(f"document.querySelector('a[href=\"#{name}\"]').click()")
    assert chromium.ask(f"{target}.closest('details').open")


def test_the_picture_is_drawn_in_the_page_s_colours(chromium: Browser, pages: Path) -> None:
    colours = set()
    for dark in (False, True):
        chromium.looks(*SCREENS["laptop"], dark=dark)
        chromium.open(pages / "everything.html")
        colours.add(chromium.ask("getComputedStyle(document.querySelector('.timeline text')).fill"))
    assert len(colours) == 2


def test_the_page_can_be_read_where_no_style_is_allowed(
    chromium: Browser, pages: Path, tmp_path: Path
) -> None:
    """As in a viewer of CI artefacts that sends a stricter policy than ours."""
    html = (pages / "everything.html").read_text("utf-8")
    strict = '<meta http-equiv="Content-Security-Policy" content="sandbox; default-src \'none\'">'
    file = tmp_path / "strict.html"
    file.write_text(html.replace("<meta charset", f"{strict}<meta charset", 1), "utf-8")
    chromium.looks(*SCREENS["laptop"])
    chromium.open(file)
    assert (
        chromium.ask("getComputedStyle(document.querySelector('.band')).backgroundColor")
        == "rgba(0, 0, 0, 0)"
    )
    assert chromium.ask("document.querySelector('h1').innerText").strip().endswith("Violation")
    drawn = chromium.ask(
        "getComputedStyle(document.querySelector('.timeline path[stroke]')).stroke"
    )
    assert drawn not in {"none", ""}


def test_it_prints_and_photographs(chromium: Browser, pages: Path, tmp_path: Path) -> None:
    chromium.looks(*SCREENS["phone"])
    chromium.open(pages / "everything.html")
    chromium.photograph(tmp_path / "phone.png")
    chromium.print(tmp_path / "page.pdf")
    assert (tmp_path / "phone.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_a_screen_reader_finds_its_way(chromium: Browser, pages: Path) -> None:
    chromium.looks(*SCREENS["laptop"])
    chromium.open(pages / "everything.html")
    nodes = chromium.call("Accessibility.getFullAXTree")["nodes"]
    roles = [node.get("role", {}).get("value") for node in nodes if not node.get("ignored")]
    for role in ("banner", "navigation", "main", "contentinfo", "region", "table", "rowheader"):
        assert role in roles, role
    unnamed = [
        node["role"]["value"]
        for node in nodes
        if not node.get("ignored")
        and node.get("role", {}).get("value") in {"link", "img", "region", "table", "navigation"}
        and not node.get("name", {}).get("value")
    ]
    assert not unnamed
