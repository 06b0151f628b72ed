# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""The style sheet of a report: light and dark, wide and narrow, on paper."""

# Okabe and Ito's palette, which colour-blind readers can tell apart; lighter in the dark.
_LIGHT = ("#0072b2", "#d55e00", "#009e73", "#a8477f", "#8a6d00", "#3f8fc0", "#555555", "#7a3e00")
_DARK = ("#56b4e9", "#ff8c42", "#2fd1a5", "#e6a0c8", "#f0d04a", "#8fb8ff", "#b9b9b9", "#d9a066")


def _colours(values: tuple[str, ...]) -> str:
    return "".join(f"--c{index}:{value};" for index, value in enumerate(values))


_RUNS = "".join(f".c{index}{{--c:var(--c{index})}}" for index in range(len(_LIGHT)))

STYLE = f"""
:root{{color-scheme:light dark;--bg:#fff;--card:#f6f7f9;--text:#1b1f24;--soft:#57606a;--grid:#d8dee4;--bad:#b42318;
--bad-bg:#fdecea;--good:#1a7f37;--link:#0550ae;{_colours(_LIGHT)}}}
@media (prefers-color-scheme:dark){{:root{{--bg:#0f1419;--card:#171d24;--text:#e6edf3;--soft:#9aa7b4;--grid:#30363d;
--bad:#ff8a80;--bad-bg:#3a1b1b;--good:#56d364;--link:#79b8ff;{_colours(_DARK)}}}}}
{_RUNS}
*{{box-sizing:border-box}}
body{{margin:0 auto;max-width:1360px;padding:16px;background:var(--bg);color:var(--text);
font:15px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif;overflow-wrap:anywhere}}
h1{{font-size:1.5em;margin:.2em 0}} h2{{font-size:1.2em;margin:1.6em 0 .3em;border-bottom:1px solid var(--grid)}}
h3{{font-size:1em;margin:.2em 0}} p{{margin:.3em 0}} a{{color:var(--link)}} .soft,figcaption p{{color:var(--soft)}}
nav a{{margin-right:1em}} nav{{margin-bottom:.8em}} h4{{margin:.8em 0 0}}
.runs,.figures{{display:grid;gap:12px;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr));align-items:start}}
.runs>article,figure{{background:var(--card);border:1px solid var(--grid);border-radius:8px;padding:10px;margin:0;
min-width:0}}
.runs>article{{border-left:6px solid var(--c)}} .runs>article.again{{border-left-style:dashed}}
figure svg{{width:100%;height:auto;display:block}}
figcaption{{font-size:.9em}} .csv{{float:right;margin-left:.6em;font-size:.85em}}
.state{{display:inline-block;padding:0 .5em;border-radius:4px;font-weight:600;border:1px solid}}
.on{{color:var(--bad);background:var(--bad-bg)}} .off{{color:var(--soft)}} .fine{{color:var(--good)}}
dl{{margin:.3em 0 .8em;display:grid;grid-template-columns:auto 1fr;gap:0 .7em}} dt{{color:var(--soft)}} dd{{margin:0}}
.legend{{list-style:none;margin:.3em 0;padding:0;display:flex;flex-wrap:wrap;gap:0 1em;font-size:.9em}}
.legend i{{display:inline-block;width:1.4em;height:0;border-top:3px solid var(--c);vertical-align:middle;
margin-right:.4em}} .legend i.again{{border-top-style:dashed}}
.wide{{overflow-x:auto}} table{{border-collapse:collapse;font-size:.88em;width:100%}}
th,td{{text-align:left;padding:.3em .6em;border-bottom:1px solid var(--grid);vertical-align:top;min-width:5.5em}}
td.number,th.number{{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}
td.text{{min-width:14em}} td.name{{min-width:13em}} code{{font-size:.92em}}
details{{margin:.5em 0}} summary{{cursor:pointer;padding:.2em 0;font-weight:600}}
svg text{{font-size:11px;fill:var(--soft)}} svg .unit{{fill:var(--text)}}
svg image{{image-rendering:pixelated}}
.grid{{stroke:var(--grid);stroke-width:1}}
.line{{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round}} .line.again{{stroke-dasharray:6 3}}
.reference{{fill:none;stroke:var(--c);stroke-width:1;stroke-dasharray:2 3}} .dot,.mark{{fill:var(--c)}}
.band{{fill:var(--c);opacity:.16}} line.level{{stroke:var(--bad);stroke-width:1;stroke-dasharray:4 3}}
svg text.level{{fill:var(--bad);stroke:var(--card);stroke-width:3;paint-order:stroke}}
@media print{{figure,article{{break-inside:avoid}}}}
"""
