"""The forms a lens can take. `DESIGNS` names those that come with alens; `alens.fit.plugin` finds others.

design.py      what a design is
linear.py      the paper's lens, on z
low_rank.py    a product of two small maps
translator.py  into the residual stream, then the unembedding
tuned.py       the Tuned Lens, on residual sites
summed.py      one loss for the heads of a layer
"""

DESIGNS = {
    "linear": "alens.lens.designs.linear:Linear",
    "low-rank": "alens.lens.designs.low_rank:LowRank",
    "translator": "alens.lens.designs.translator:Translator",
    "tuned": "alens.lens.designs.tuned:Tuned",
    "summed": "alens.lens.designs.summed:Summed",
}
"""Name -> `module:Class`."""
