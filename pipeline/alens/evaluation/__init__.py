"""How well lenses read: held-out figures for each head beside baselines.

figures.py          KL, cross-entropy, agreement: what a fit needs
panel.py            lenses and baselines, side by side
sums.py             all figures, summed by document or sequence
reading_figures.py  sums -> figures, intervals, differences
result.py           what an evaluation finds
evaluate.py         lenses on a cache, beside baselines
shards.py           which shards lenses are judged on
training.py         what they were trained on, and where that is in a cache
"""
