"""How well lenses read: held-out figures for each head beside baselines.

held_out.py  held-out rows, and what judging needs   figures.py          KL, cross-entropy, agreement: for a fit
panel.py     lenses and baselines, side by side      sums.py             all figures, by sequence
evaluate.py  lenses on a cache                       reading_figures.py  figures, intervals, differences
bootstrap.py drawing whole groups                    result.py           what is found
groups.py    documents or sequences: what is drawn   agreement.py        the same tokens, under ties
"""
