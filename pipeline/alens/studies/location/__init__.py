"""Which heads raise some terms on some prompts above their rate on others, or the answers that prompts have of their own.

settings.py       which heads are tested, and how
locate.py         heads that raise terms on prompts above controls
result.py         heads ranked by their effect
prompt_groups.py  prompts and controls, each text once
questions.py      prompts with a target, foil and control of their own
asked_prompts.py  either of them as tokens, ready to run
scored.py         what is scored: a list of terms, or each prompt's own answer
term_rates.py     how probable that is by each head, on each prompt
pursuit.py        what heads write, along the unembedding vectors of tokens
effect_tests.py   effects with intervals and p-values
"""
