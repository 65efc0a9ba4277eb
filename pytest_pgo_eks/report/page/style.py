"""Colours and layout of the page.

Two palettes, light and dark. :data:`PAIRS` are the colours that carry text and what they lie on; the
tests compute their contrast (at least 4.5, as WCAG 2.2 AA asks for text of any size). Colour never
speaks alone: every outcome has a word and a sign. Nothing is loaded, so the page needs no more of a
content-security policy than the hash of this one style sheet.
"""

from __future__ import annotations

import base64
import hashlib

LIGHT = {
    "ground": "#ffffff",
    "panel": "#f6f7f9",
    "ink": "#1b1f24",
    "soft": "#57606a",
    "line": "#d5d9df",
    "link": "#0b57d0",
    "pass": "#17693c",
    "pass-tint": "#e3f4e9",
    "violation": "#b3261e",
    "violation-tint": "#fdeceb",
    "inconclusive": "#7d5300",
    "inconclusive-tint": "#fdf1d8",
    "skipped": "#57606a",
    "skipped-tint": "#eceef1",
    "band-ink": "#ffffff",
    "band-pass": "#17693c",
    "band-violation": "#b3261e",
    "band-inconclusive": "#7d5300",
}
DARK = {
    "ground": "#15181c",
    "panel": "#1d2126",
    "ink": "#e6e8eb",
    "soft": "#a3acb8",
    "line": "#3a4048",
    "link": "#8ab4f8",
    "pass": "#6dd598",
    "pass-tint": "#163324",
    "violation": "#ff9a92",
    "violation-tint": "#42201e",
    "inconclusive": "#f5c363",
    "inconclusive-tint": "#3a2e14",
    "skipped": "#a3acb8",
    "skipped-tint": "#2a2f36",
    "band-ink": "#f4f6f8",
    "band-pass": "#14532f",
    "band-violation": "#8c1d18",
    "band-inconclusive": "#6b4700",
}
# The pictures' own, as pytest_pgo_eks/history/timeline.py has them; they carry no text.
LIGHT_PICTURE = {
    "ok": "#2563eb",
    "unsafe": "#b45309",
    "fail": "#dc2626",
    "info": "#9333ea",
    "out": "#dc262622",
    "t0": "#94a3b8",
    "t1": "#2563eb",
    "t2": "#ea580c",
    "t3": "#16a34a",
    "t4": "#9333ea",
    "t5": "#ca8a04",
    "t6": "#0891b2",
}
DARK_PICTURE = {
    "ok": "#60a5fa",
    "unsafe": "#fbbf24",
    "fail": "#f87171",
    "info": "#c084fc",
    "out": "#f8717133",
    "t0": "#64748b",
    "t1": "#60a5fa",
    "t2": "#fb923c",
    "t3": "#4ade80",
    "t4": "#c084fc",
    "t5": "#facc15",
    "t6": "#22d3ee",
}
OUTCOMES = ("pass", "violation", "inconclusive", "skipped")
PAIRS = (
    ("ink", "ground"),
    ("ink", "panel"),
    ("soft", "ground"),
    ("soft", "panel"),
    ("link", "ground"),
    ("link", "panel"),
    ("link", "violation-tint"),
    ("link", "inconclusive-tint"),
    *((name, "ground") for name in OUTCOMES),
    *((name, "panel") for name in OUTCOMES),
    *((name, f"{name}-tint") for name in OUTCOMES),
    *(("ink", f"{name}-tint") for name in OUTCOMES),
    *(("band-ink", f"band-{name}") for name in OUTCOMES if name != "skipped"),
)


def _variables(*palettes: dict[str, str]) -> str:
    return ";".join(f"--{name}:{value}" for palette in palettes for name, value in palette.items())


_RULES = """
*{box-sizing:border-box}
html{color-scheme:light dark;font:clamp(15px,.55vw + 11px,22px)/1.5 system-ui,-apple-system,"Segoe UI",
Roboto,"Noto Sans",sans-serif;background:var(--ground);color:var(--ink);scroll-padding-top:1rem;
-webkit-text-size-adjust:100%}
body{margin:0;overflow-wrap:anywhere}
a{color:var(--link);text-underline-offset:.15em}
a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--link);
outline-offset:2px;border-radius:.2rem}
h1,h2,h3,h4,p,ul,ol,dl,dd,figure,table{margin:0;padding:0}
h2{font-size:1.25rem;line-height:1.3;margin:0 0 .25rem}
h3{font-size:1.05rem;margin:1.25rem 0 .35rem}
h4{font-size:1rem;margin:1rem 0 .3rem}
code,pre{font:.85em/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
pre{white-space:pre-wrap;margin:.35rem 0;padding:.6rem .75rem;background:var(--panel);
border-radius:.35rem}
.skip{position:absolute;left:-999rem}
.skip:focus{left:1rem;top:1rem;background:var(--ground);padding:.5rem 1rem;z-index:1}
.band{padding:clamp(1.1rem,2.5vw,2.4rem) clamp(1rem,4vw,4rem);color:var(--band-ink)}
.band.pass{background:var(--band-pass)}.band.violation{background:var(--band-violation)}
.band.inconclusive{background:var(--band-inconclusive)}
.band h1{font-size:clamp(1.9rem,3.6vw,3.6rem);line-height:1.1;letter-spacing:-.02em}
.band .say{font-size:clamp(1.05rem,1.4vw,1.5rem);margin:.4rem 0 .7rem;max-width:62ch}
.band a{color:inherit}
.band .what{max-width:90ch}
.band .stand-in{border:2px solid currentColor;border-radius:.4rem;padding:.45rem .75rem;
margin-top:.9rem;max-width:74ch}
nav{border-bottom:1px solid var(--line);padding:.45rem clamp(1rem,4vw,4rem)}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem 1.15rem}
nav a{display:inline-block;padding:.2rem 0}
main,footer{padding:0 clamp(1rem,4vw,4rem);max-width:110rem}
section{padding-top:1.9rem}
.lead,footer{color:var(--soft)}
.lead{margin-bottom:.8rem;max-width:78ch}
footer{padding-top:2rem;padding-bottom:2.5rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.2rem,1fr));gap:.7rem;
padding-top:1.4rem}
.tiles div{background:var(--panel);border-radius:.5rem;padding:.65rem .9rem;border-left:.3rem solid
var(--line)}
.tiles dt{color:var(--soft);font-size:.85rem}
.tiles dd{font-size:1.55rem;font-weight:650;line-height:1.25;font-variant-numeric:tabular-nums}
.tiles small{display:block;font-size:.8rem;font-weight:400;color:var(--soft);line-height:1.35;
overflow-wrap:anywhere}
.tiles .pass{border-color:var(--pass)}.tiles .violation{border-color:var(--violation)}
.tiles .inconclusive{border-color:var(--inconclusive)}.tiles .skipped{border-color:var(--skipped)}
.card{border-left:.35rem solid var(--line);background:var(--panel);border-radius:.45rem;
padding:.8rem 1rem;margin-bottom:.8rem}
.card.violation{border-color:var(--violation);background:var(--violation-tint)}
.card.inconclusive{border-color:var(--inconclusive);background:var(--inconclusive-tint)}
.card pre{background:var(--ground)}
.card h3{margin:0 0 .2rem}
.card .lead{color:var(--ink);margin:0}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;width:100%;font-size:.92rem}
caption{text-align:left;color:var(--soft);padding-bottom:.35rem}
th,td{text-align:left;vertical-align:top;padding:.32rem .6rem .32rem 0;border-bottom:1px solid
var(--line)}
thead th{color:var(--soft);font-weight:600;white-space:nowrap}
tbody th{font-weight:400;overflow-wrap:anywhere;min-width:11rem}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.c{text-align:center;width:2.6rem;padding-right:0}
.group th{font-weight:650;padding-top:.9rem}
.badge{display:inline-block;border-radius:.3rem;padding:0 .45rem;font-size:.85rem;font-weight:600;
white-space:nowrap}
.badge.pass,.c.pass{background:var(--pass-tint);color:var(--pass)}
.badge.violation,.c.violation{background:var(--violation-tint);color:var(--violation)}
.badge.inconclusive,.c.inconclusive{background:var(--inconclusive-tint);color:var(--inconclusive)}
.badge.skipped,.c.skipped,.badge.uncovered{background:var(--skipped-tint);color:var(--skipped)}
.c{font-weight:700}
.mosaic{margin:.3rem 0 1.2rem;table-layout:fixed}
.mosaic .name{width:30%}.mosaic th{min-width:0;padding-right:1.5rem;vertical-align:middle}
.mosaic th,.mosaic td{border:0;padding-top:.15rem;padding-bottom:.15rem}.mosaic td{padding-right:0}
.cells{display:flex;flex-wrap:wrap;gap:.2rem;list-style:none}
.cells a{display:block;width:1.65rem;text-align:center;border-radius:.25rem;font-weight:700;
text-decoration:none}
.cells .pass{background:var(--pass-tint);color:var(--pass)}
.cells .violation{background:var(--band-violation);color:var(--band-ink)}
.cells .inconclusive{background:var(--band-inconclusive);color:var(--band-ink)}
.cells .skipped{background:var(--skipped-tint);color:var(--skipped)}
.marks{letter-spacing:.18em;white-space:nowrap;color:var(--soft)}
.bar{display:block;width:10rem;height:.9rem;margin-top:.25rem}
.bar .t{fill:var(--line)}.bar .pass{fill:var(--pass)}.bar .violation{fill:var(--violation)}
.bar .inconclusive{fill:var(--inconclusive)}.bar .b{fill:var(--ink)}
details{border-bottom:1px solid var(--line)}
summary{cursor:pointer;padding:.5rem 0;overflow-wrap:anywhere}
summary .badge{margin-right:.35rem}
.inner{padding:.15rem 0 1.1rem 1.05rem;scroll-margin-top:3rem}
.steps{list-style:none;margin:.4rem 0}
.steps li{display:grid;grid-template-columns:1.4rem minmax(0,1fr) auto;gap:.4rem;padding:.1rem 0}
.steps .failed{color:var(--violation);font-weight:600}
.facts{display:grid;grid-template-columns:minmax(5rem,auto) minmax(0,1fr);gap:.15rem 1rem}
.facts dt{color:var(--soft)}
.facts dd{overflow-wrap:anywhere}
.chip{border:1px solid var(--line);border-radius:.3rem;padding:0 .35rem;font-size:.82rem;
color:var(--soft)}
.plain{list-style:none}.plain li{padding:.12rem 0;overflow-wrap:anywhere}
.hid{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.timeline{overflow-x:auto;margin:.7rem 0;border:1px solid var(--line);border-radius:.4rem;
background:var(--ground)}
.timeline svg{display:block;min-width:56rem;width:100%;height:auto;font:12px system-ui,sans-serif}
.timeline text{fill:var(--ink)}.timeline .soft{fill:var(--soft)}
.timeline .grid{stroke:var(--line);fill:none}
.timeline .ok{fill:var(--ok)}.timeline .unsafe{fill:var(--unsafe)}.timeline .fail{fill:var(--fail)}
.timeline .info{fill:var(--info)}.timeline .out{fill:var(--out)}
.timeline .mark{stroke:var(--ink);stroke-dasharray:3 3}
.timeline .on{paint-order:stroke;stroke:var(--ground);stroke-width:3px}
.timeline .big{font-size:15px;font-weight:600}
@media(max-width:44rem){
.wide thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.wide tr{display:block;border-bottom:1px solid var(--line);padding:.5rem 0}
.wide th,.wide td{display:block;border:0;padding:.06rem 0;text-align:left;white-space:normal}
.wide tbody th{font-weight:600}
.wide td[data-label]::before{content:attr(data-label) ": ";color:var(--soft)}
.mosaic tr,.mosaic th,.mosaic td{display:block;width:auto;white-space:normal}
.mosaic th{padding-top:.5rem}
.matrix tbody th{min-width:7rem}
.matrix .time{display:none}
.c{width:1.9rem}
.facts{grid-template-columns:minmax(0,1fr)}
.facts dd{margin-bottom:.3rem}
}
@media print{
html{font-size:10pt;color-scheme:light}
nav,.skip{display:none}
main,footer,.band{padding-left:0;padding-right:0;max-width:none}
.band{color:var(--ink);background:none!important;border:3px solid;padding:.6rem .9rem}
.band.pass{border-color:var(--pass)}.band.violation{border-color:var(--violation)}
.band.inconclusive{border-color:var(--inconclusive)}
a{color:inherit;text-decoration:none}
.timeline svg{min-width:0}
.card,.tiles div,tr,figure,.steps li{break-inside:avoid}
h2,h3,.group{break-after:avoid}
*{print-color-adjust:exact}
}
"""

STYLE = (
    f":root{{{_variables(LIGHT, LIGHT_PICTURE)}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK, DARK_PICTURE)}}}}}"
    + _RULES.replace(":\n", ":").replace("\n", " ")
)
"""The style sheet. On paper it is always the light one."""

POLICY = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'"
)
"""The page's content-security policy: this style sheet, nothing else, no script, no request."""
