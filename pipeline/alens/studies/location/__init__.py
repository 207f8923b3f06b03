"""Bias localisation: which heads raise some terms on some prompts above their rate on others.

settings.py       which heads are tested, and how
locate.py         heads that raise terms on prompts above controls
result.py         heads ranked by their effect
prompt_groups.py  prompts and controls, each text once
term_rates.py     how probable terms are by each head, on each prompt
effect_tests.py   effects with intervals and p-values
"""
