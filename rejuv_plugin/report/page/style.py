# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The style sheets: of a page, light and dark, wide and narrow, on paper; and of a picture that is saved from it."""

import re

COLOURS = 8
"""Lines after them are drawn in the same colours, dashed."""
DEPTHS = 10
"""Colours along a ladder, from its first rung to its last."""

# Okabe and Ito's palette, which colour-blind readers can tell apart; lighter in the dark.
_LIGHT = ("#0072b2", "#d55e00", "#009e73", "#a8477f", "#8a6d00", "#3f8fc0", "#555555", "#7a3e00")
_DARK = ("#56b4e9", "#ff8c42", "#2fd1a5", "#e6a0c8", "#f0d04a", "#8fb8ff", "#b9b9b9", "#d9a066")
# From cold to hot, all of them 3 : 1 against their background.
_LIGHT_DEPTH = ("#2f86c5", "#6a5fc1", "#b0388a", "#cf3f2a")
_DARK_DEPTH = ("#5cbcff", "#a99bff", "#ff86c8", "#ff9a5c")


def _between(anchors: tuple[str, ...]) -> tuple[str, ...]:
    """`DEPTHS` colours at equal distances."""
    rgb = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in anchors]
    found = []
    for depth in range(DEPTHS):
        at = depth * (len(rgb) - 1) / (DEPTHS - 1)
        index = min(int(at), len(rgb) - 2)
        pair = zip(rgb[index], rgb[index + 1], strict=True)
        found.append("#" + "".join(f"{round(a + (b - a) * (at - index)):02x}" for a, b in pair))
    return tuple(found)


_LIGHT_SET = {
    "bg": "#fff", "card": "#f6f7f9", "text": "#1b1f24", "soft": "#57606a", "grid": "#d8dee4", "link": "#0550ae",
    "bad": "#b42318", "bad-bg": "#fdecea", "good": "#1a7f37", "good-bg": "#e6f6ea", "warn": "#8a4b00",
    "warn-bg": "#fff3dc", "weak": "#5b3fa8", "weak-bg": "#efebfb",
    **{f"c{index}": colour for index, colour in enumerate(_LIGHT)},
    **{f"d{index}": colour for index, colour in enumerate(_between(_LIGHT_DEPTH))},
}  # fmt: skip
_DARK_SET = {
    "bg": "#0f1419", "card": "#171d24", "text": "#e6edf3", "soft": "#9aa7b4", "grid": "#30363d", "link": "#79b8ff",
    "bad": "#ff8a80", "bad-bg": "#3a1b1b", "good": "#56d364", "good-bg": "#12291a", "warn": "#f2c14e",
    "warn-bg": "#33280f", "weak": "#c4b3ff", "weak-bg": "#241d3d",
    **{f"c{index}": colour for index, colour in enumerate(_DARK)},
    **{f"d{index}": colour for index, colour in enumerate(_between(_DARK_DEPTH))},
}  # fmt: skip


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


# `--c` colours HTML; `color` what is drawn, as programs that know no variables understand it too.
_LINES = "".join(f".{name}{{--c:var(--{name});}}" for name in _LIGHT_SET if name[1:].isdigit())
_DRAWN = "".join(f"svg .{name}{{color:var(--{name})}}" for name in _LIGHT_SET if name[1:].isdigit())

_PICTURE = f"""
{_DRAWN}svg .base{{color:var(--soft)}}
svg text{{font-size:11px;fill:var(--soft)}} svg .unit,svg .title{{fill:var(--text)}} svg .title{{font-weight:600}}
svg image{{image-rendering:pixelated}}
.grid{{stroke:var(--grid);stroke-width:1}}
.line{{fill:none;stroke:currentColor;stroke-width:1.8;stroke-linejoin:round}} .line.again{{stroke-dasharray:6 3}}
.key{{stroke:currentColor;stroke-width:3}} .key.again,.key.base{{stroke-dasharray:6 3}}
.reference,.line.base{{fill:none;stroke:currentColor;stroke-width:1.2;stroke-dasharray:3 3}}
.whisker{{stroke:currentColor;stroke-width:1.3}} .dot,.mark,.bar{{fill:currentColor}}
.band{{fill:currentColor;opacity:.16}} line.level{{stroke:var(--bad);stroke-width:1;stroke-dasharray:4 3}}
.side{{fill:var(--bad);opacity:.12}} line.choice{{stroke:var(--good);stroke-width:5;opacity:.3}}
svg text.level,svg text.choice{{fill:var(--bad);stroke:var(--card);stroke-width:3;paint-order:stroke}}
svg text.choice{{fill:var(--good);font-weight:600}}
"""

_FONT = 'system-ui,"Segoe UI","DejaVu Sans",sans-serif'

FILE_STYLE = re.sub(r"var\(--([\w-]+)\)", lambda name: _LIGHT_SET[name[1]], _PICTURE.replace("var(--card)", "#fff"))
FILE_STYLE = f"svg text{{font-family:{_FONT.replace(chr(34), chr(39))}}}{FILE_STYLE}"
"""Of a saved picture: the light colours by value."""

STYLE = f"""
:root{{color-scheme:light dark;{_variables(_LIGHT_SET)}}}
@media (prefers-color-scheme:dark){{:root{{{_variables(_DARK_SET)}}}}}
{_LINES}.base{{--c:var(--soft)}}
*{{box-sizing:border-box}}
body{{margin:0 auto;max-width:1360px;padding:16px;background:var(--bg);color:var(--text);
font:15px/1.5 {_FONT};overflow-wrap:anywhere}}
h1{{font-size:1.5em;margin:.2em 0}} h2{{font-size:1.2em;margin:1.6em 0 .3em;border-bottom:1px solid var(--grid)}}
h3{{font-size:1em;margin:.2em 0}} p{{margin:.3em 0}} a{{color:var(--link)}} .soft,figcaption p{{color:var(--soft)}}
nav a{{margin-right:1em;display:inline-block}} nav{{margin-bottom:.8em}} h4{{margin:.8em 0 0}}
.skip{{position:absolute;left:-99em}} .skip:focus{{left:8px;top:8px;background:var(--bg);padding:.4em .8em;z-index:1}}
:focus-visible{{outline:3px solid var(--link);outline-offset:2px;border-radius:3px}}
.runs,.figures{{display:grid;gap:12px;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr));align-items:start}}
.figures.small{{grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr))}}
.runs>article,figure{{background:var(--card);border:1px solid var(--grid);border-radius:8px;padding:10px;margin:0;
min-width:0}}
.runs>article{{border-left:6px solid var(--c)}} .runs>article.again{{border-left-style:dashed}}
figure svg{{width:100%;height:auto;display:block}}
figcaption{{font-size:.9em}} .save{{float:right;margin-left:.8em;font-size:.85em;white-space:nowrap}}
.save a{{display:inline-block;padding:2px 4px}}
.state{{display:inline-block;padding:0 .5em;border-radius:4px;font-weight:600;border:1px solid;white-space:nowrap}}
.on{{color:var(--bad);background:var(--bad-bg)}} .off{{color:var(--soft)}} .fine{{color:var(--good)}}
.state.fine{{background:var(--good-bg)}} .warn{{color:var(--warn);background:var(--warn-bg)}}
.weak{{color:var(--weak);background:var(--weak-bg)}}
.lead{{background:var(--card);border:1px solid var(--grid);border-radius:8px;padding:12px 16px;margin:.6em 0 1em}}
.lead .big{{font-size:1.7em;font-weight:700;line-height:1.2;margin:0 0 .2em}}
.lead>p,.case>p,.case>ul{{max-width:75ch}}
.case{{background:var(--card);border:1px solid var(--grid);border-radius:8px;padding:4px 12px;margin:8px 0}}
.case>summary h3{{display:inline;font-size:1em;margin:0 .5em 0 0}} .case>summary p{{margin:0 0 0 1.2em;font-weight:400}}
.case ul{{margin:.2em 0 .6em;padding-left:1.4em}} .gauge{{width:150px;height:22px;display:block}}
dl{{margin:.3em 0 .8em;display:grid;grid-template-columns:auto 1fr;gap:0 .7em}} dt{{color:var(--soft)}} dd{{margin:0}}
.legend{{list-style:none;margin:.3em 0;padding:0;display:flex;flex-wrap:wrap;gap:0 1em;font-size:.9em}}
.legend i{{display:inline-block;width:1.4em;height:0;border-top:3px solid var(--c);vertical-align:middle;
margin-right:.4em}} .legend i.again,.legend i.base{{border-top-style:dashed}}
.wide{{overflow-x:auto}} table{{border-collapse:collapse;font-size:.88em;width:100%}}
th,td{{text-align:left;padding:.3em .6em;border-bottom:1px solid var(--grid);vertical-align:top;min-width:5.5em}}
tbody th{{font-weight:400}} td.number,th.number{{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}
td.text{{min-width:14em}} th.name{{min-width:13em}} code{{font-size:.92em}}
details{{margin:.5em 0}} summary{{cursor:pointer;padding:.2em 0;font-weight:600}}
{_PICTURE}
@media print{{figure,article,tr{{break-inside:avoid}} h2,h3,summary{{break-after:avoid}} nav,.skip,.save{{display:none}}
details::details-content{{content-visibility:visible;height:auto;block-size:auto}} .wide{{overflow:visible}}}}
"""
