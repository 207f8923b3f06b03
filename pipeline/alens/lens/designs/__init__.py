"""The designs of lenses: how the map of a head is parametrised in training.

`DESIGNS` names those that come with alens; `alens.fit.plugin` finds others.

design.py      what a design is
readout.py     what an objective reads of a design
linear.py      the lens of the paper, on z
low_rank.py    a product of two small maps
translator.py  into the residual stream, then the unembedding
regression.py  the same in closed form, without a fit
tuned.py       the Tuned Lens, on sites of the residual stream
summed.py      one loss for the heads of a layer
white_unembedding.py  coordinates in which W_U is white
"""

DESIGNS = {
    "linear": "alens.lens.designs.linear:Linear",
    "low-rank": "alens.lens.designs.low_rank:LowRank",
    "translator": "alens.lens.designs.translator:Translator",
    "regression": "alens.lens.designs.regression:Regression",
    "tuned": "alens.lens.designs.tuned:Tuned",
    "summed": "alens.lens.designs.summed:Summed",
}
"""Name -> `module:Class`."""
