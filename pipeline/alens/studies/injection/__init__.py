"""Activation engineering: a direction added at a head, or heads taken away, and what the model then does.

settings.py      what is added or taken away, and where
inject.py        directions added at a head, strength by strength
ablate.py        heads taken away
result.py        what these give
directions.py    tokens -> directions: of a lens, the unembedding, random
typical.py       mean, covariance and size of what heads write
edit_effects.py  edits -> next tokens, and loss on a text
perplexity.py    a text in windows, and the loss on it
"""
