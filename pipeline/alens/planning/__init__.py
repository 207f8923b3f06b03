"""The cost of a cache, estimated before any of it is written: `alens plan`. It imports both stages; neither imports it.

estimate_cache.py  request -> estimate
token_count.py     text -> tokens, exact or extrapolated
sizes.py           plan -> bytes, files, memory
budget.py          what a probe may take, and what work takes when nothing else runs
model_rates.py     speed of the model on this machine
codec_rates.py     speed of the codecs
fit_probe.py       a fit of some heads, made for timing
fit_rates.py       speed of a step of a fit
judging_rates.py   speed of its held-out losses and figures
stand_ins.py       numbers in the place of those that were not computed
disk.py            speed and room of this disk
fit_heads.py       which heads are to be fitted
fit_estimate.py    what a fit takes: steps, time, memory, sizes
costs.py           rates -> hours, and when a cache pays
result.py          all of it as plain numbers
"""
