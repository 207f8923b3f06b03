"""The style of the pages of an atlas, beside that of every page (`pictures/page.py`).

In: nothing. Out: CSS.
"""

HEAD_STYLE = """\
:root { --mark: #ffe08a; --mark-text: #1b1f24; }
body { max-width: 92rem; }
h1 { margin: .6rem 0 0; }
h2 { font-size: 1.1rem; margin: 1.4rem 0 .3rem; }
h3 { font-size: 1rem; margin: 1rem 0 .2rem; }
p { margin: .25rem 0; overflow-wrap: anywhere; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; }
section { min-width: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; max-width: 100%; }
caption { text-align: left; padding: .4rem 0 .2rem; }
th, td { padding: .12rem .5rem .12rem 0; text-align: left; vertical-align: top; }
thead th { font-weight: 400; font-size: .85rem; color: var(--quiet); border-bottom: 1px solid var(--line); }
tbody th { font-weight: 400; overflow-wrap: break-word; }
.number { text-align: right; white-space: nowrap; padding: .12rem 0 .12rem .7rem; }
thead .number { white-space: normal; }
small { color: var(--quiet); }
.columns { display: grid; gap: 0 2.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); align-items: start; }
.lists { display: grid; gap: .5rem 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); align-items: start; }
.tokens { width: 100%; max-width: 22rem; }
.tokens caption { font-weight: 600; }
.tokens tbody th { max-width: 10rem; overflow-wrap: anywhere; }
.word { unicode-bidi: isolate; font-family: ui-monospace, monospace; font-size: .92rem; overflow-wrap: anywhere; }
.plain, ol { padding: 0; margin: 0; list-style: none; }
.rows { max-width: 76rem; }
.rows li { padding: .45rem 0; border-bottom: 1px solid var(--line); }
.text { font-family: ui-serif, Georgia, serif; }
mark { background: var(--mark); color: var(--mark-text); border-radius: .2rem; padding: 0 .15rem; white-space: pre-wrap; font-weight: 600; }
.after { color: var(--quiet); }
dl { margin: .2rem 0 0; display: grid; gap: .1rem 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
dl div { display: flex; gap: .6rem; min-width: 0; }
dt { color: var(--quiet); flex: 0 0 3rem; font-size: .88rem; }
dd { margin: 0; min-width: 0; }
.pair { display: inline-block; margin-right: .6rem; }
@media (max-width: 34rem) {
  body { padding: .75rem; }
  .lists { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .5rem 1rem; }
  .lists td, .lists th { font-size: .82rem; }
  .lists .number { padding-left: .3rem; }
  .lists .word { font-size: .8rem; }
}
"""

INDEX_STYLE = """\
select, input { font: inherit; color: inherit; background: var(--raised); border: 1px solid var(--line); border-radius: .35rem;
  padding: .25rem .4rem; max-width: 100%; }
#choice { margin: .8rem 0 .2rem; }
.scroll { overflow-x: auto; padding: 4px; margin: .4rem -4px; }
#grid { border-collapse: separate; border-spacing: 3px; }
#grid th { font-weight: 600; font-size: .85rem; color: var(--quiet); padding: 0 .3rem; text-align: center; border: 0; }
#grid tbody th { text-align: right; position: sticky; left: 0; background: var(--ground); }
#grid thead th { position: sticky; top: 0; background: var(--ground); }
#grid td { padding: 0; }
.cell { display: block; min-width: 3.6rem; padding: .1rem .3rem; border-radius: .3rem; background: var(--raised); color: var(--text);
  text-decoration: none; text-align: center; line-height: 1.25; }
.cell span { display: block; font-size: .8rem; }
.cell:hover { box-shadow: 0 0 0 2px var(--text); }
.cell.hit { box-shadow: 0 0 0 2px var(--ground), 0 0 0 4px var(--text); position: relative; }
#asked { width: 14rem; }
#matches { display: flex; flex-wrap: wrap; gap: .3rem; align-items: center; margin: .4rem 0; }
#matches button { font-size: .92rem; padding: .2rem .5rem; border: 1px solid var(--line); border-radius: .35rem; background: var(--raised);
  color: var(--text); cursor: pointer; }
#matches button:hover { border-color: var(--accent); }
.answers { display: grid; gap: .6rem 2.2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); align-items: start; }
.where { text-align: left; padding-left: .8rem; overflow-wrap: anywhere; font-family: ui-serif, Georgia, serif; }
#answer th { white-space: nowrap; }
#answer { margin-bottom: 1rem; }
.cell.outlier .value { text-decoration: underline; }
#legend { display: flex; align-items: center; gap: .5rem; max-width: 24rem; font-variant-numeric: tabular-nums; }
#legend[hidden] { display: none; }
#scale { flex: 1; height: .8rem; border-radius: .2rem; border: 1px solid var(--line); }
@media (max-width: 34rem) { .cell { min-width: 2.9rem; padding: .1rem; } }
"""
