"""How well lenses read: held-out figures for each head beside baselines that need no training.

held_out.py  held-out rows, and what judging needs    figures.py  KL, cross-entropy, agreement
evaluate.py  lenses on a cache
"""
