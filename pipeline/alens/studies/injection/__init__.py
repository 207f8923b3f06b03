"""Activation engineering: a direction added at a head, or heads taken away, and what the model then does.

settings.py      what is added or taken away, and where
inject.py        directions added at a head, strength by strength
result.py        what that finds
ablate.py        heads taken away
directions.py    tokens -> directions: of a lens, the unembedding, random
typical.py       mean, covariance and size of what heads write
edit_effects.py  one change of the model, on prompts and a text
next_token.py    what it does to the next token
perplexity.py    what it costs on a text
"""
