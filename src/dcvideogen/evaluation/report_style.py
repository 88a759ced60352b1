"""The style sheet of the HTML page: light and dark as the reader's system says, one column on a phone."""

STYLE = """
:root{--bg:#fff;--fg:#1c2430;--muted:#5b6676;--line:#d9dee6;--card:#f6f8fa;
--c0:#1f6fd6;--c1:#d2571b;--c2:#178a62;--c3:#8a4fc4;--c4:#a87b00;--c5:#c2336b}
@media (prefers-color-scheme:dark){:root{--bg:#11161d;--fg:#e4e9f0;--muted:#9aa7b8;--line:#303a47;--card:#1a212b;
--c0:#5b9dff;--c1:#ff8b50;--c2:#3fc795;--c3:#bd8cf2;--c4:#e0b437;--c5:#f0749f}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:16px}
h1{font-size:1.5rem;margin:.5em 0;overflow-wrap:anywhere}h2{font-size:1.15rem;margin:0 0 .5em;overflow-wrap:anywhere}
h3{font-size:1rem;margin:1em 0 .3em}
section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:14px;margin:16px 0}
.muted,figcaption{color:var(--muted);font-size:.85rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:4px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child{text-align:left;font-weight:600;position:sticky;left:0;background:var(--card)}
thead th{color:var(--muted);font-weight:600;white-space:normal;
vertical-align:bottom}
.swatch{display:inline-block;width:.7em;height:.7em;border-radius:2px;margin-right:.4em}
.patch{display:inline-block;width:1.6em;height:1em;border:1px solid var(--line);margin-right:.5em;vertical-align:-2px}
.b0{background:var(--c0)}.b1{background:var(--c1)}.b2{background:var(--c2)}
.b3{background:var(--c3)}.b4{background:var(--c4)}.b5{background:var(--c5)}
.legend span{margin-right:1em}.legend{font-size:.9rem;margin:.3em 0}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:14px}
figure{margin:0}img{max-width:100%;height:auto;display:block}
.three{display:grid;grid-template-columns:repeat(3,minmax(0,320px));gap:6px;margin-bottom:8px}
.three img{width:100%}
.worst{display:grid;grid-template-columns:repeat(auto-fill,minmax(220px,1fr));gap:10px}
.worst img{width:100%;max-width:384px;image-rendering:pixelated}
.plot{width:100%;height:auto}.plot text{fill:var(--muted);font-size:15px}
.plot .grid{stroke:var(--line)}.plot .mark{stroke:var(--muted);stroke-dasharray:4 4}
.line{fill:none;stroke-width:1.8}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}.s4{stroke:var(--c4)}
.s5{stroke:var(--c5)}
.bar,.dot{stroke:none}.bar.s0,.dot.s0{fill:var(--c0)}.bar.s1,.dot.s1{fill:var(--c1)}.bar.s2,.dot.s2{fill:var(--c2)}
.bar.s3,.dot.s3{fill:var(--c3)}.bar.s4,.dot.s4{fill:var(--c4)}.bar.s5,.dot.s5{fill:var(--c5)}
summary{cursor:pointer;margin:.3em 0}
dt{font-weight:600}dd{margin:0 0 .3em 1em;color:var(--muted)}
"""
