"""What each head does to the end of the model, measured: runs the model on some rows of a cache and writes the result
beside the cache. Effects: the change of the final normed residual when z of a head is replaced by its mean. Jacobians: how
the residual stream before the last norm moves with z of a head.

settings.py           which rows and heads to measure
measurement.py        which heads, whose share, and the model
effect_sample.py      which sequences, of which documents
measure_effects.py    runs the model without each head, and writes what changes
effect_cost.py        how long that takes
measure_jacobians.py  measures how the stream moves with z, and writes it
mean_jacobian.py      the mean Jacobian of heads on some sequences, from backward passes
"""
