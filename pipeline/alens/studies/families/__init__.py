"""Which head does what: scores of every head of a model, that need neither lenses, a cache nor labels.

settings.py           how many random tokens, and which
score_heads.py        all families of a model
result.py             heads ranked within each family
repeated_tokens.py    random sequences that repeat themselves, and their controls
attention_scores.py   where heads look in them
"""
