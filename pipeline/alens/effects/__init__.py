"""What a model loses without each head, measured: runs the model on some rows of a cache with each head's z replaced by
its mean, and writes the change of the final normed residual beside the cache.

settings.py         which rows and heads to measure
effect_sample.py    which sequences, of which documents
measure_effects.py  runs the model without each head, and writes what changes
effect_cost.py      how long that takes
"""
