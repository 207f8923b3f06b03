"""What a cache would take, before anything of it is written: `alens plan`. Knows both stages; neither knows it.

run.py       request -> estimate
text.py      text -> tokens, exact or extrapolated
sizes.py     plan -> bytes, files, memory
probe.py     rates of this machine: model, codecs, fit
disk.py      rates and room of this disk
estimate.py  rates -> hours, and when a cache pays
figures.py   all of it as plain numbers
"""
