"""Bias localisation: which heads raise some terms on some prompts above their rate on others.

locate.py        the study               term_rates.py    prompts -> how probable the terms are
effects.py       rates -> effects        permutation.py   tests of many heads at once
chance.py        what chance would give  corrections.py   p-values for many heads
locate_map.py    effects as a heat map
"""
