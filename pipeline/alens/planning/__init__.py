"""The cost of a cache, estimated before any of it is written: `alens plan`. It imports both stages; neither imports it.

estimate_cache.py  request -> estimate
token_count.py     text -> tokens, exact or extrapolated
sizes.py           plan -> bytes, files, memory
rates.py           speed of this machine: model, codecs, fit
disk.py            speed and room of this disk
costs.py           rates -> hours, and when a cache pays
result.py          all of it as plain numbers
"""
