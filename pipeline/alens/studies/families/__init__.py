"""Which head does what: scores of every head of a model, that need neither lenses, a cache nor labels.

settings.py           how many random tokens, and which
score_heads.py        all families of a model
result.py             heads ranked within each family
repeated_tokens.py    random sequences that repeat themselves, and their controls
attention_scores.py   where heads look in them
relations.py          pairs of words that belong together
token_maps.py         what heads write when they look at a token, from the parameters
"""
