"""Activation engineering: add a direction at a head, or ablate heads, and see what the model does.

settings.py      what is added or ablated, and where
inject.py        directions added at a head, strength by strength
ablate.py        heads ablated
result.py        the results of both
directions.py    tokens -> directions: of a lens, the unembedding, random
typical.py       mean and covariance of heads' values, and the size of what they write
edit_effects.py  edits -> next tokens, and loss on a text
perplexity.py    a text in windows, and the loss on it
"""
