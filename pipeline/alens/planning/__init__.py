"""What a cache would take, before anything of it is written: `alens plan`. Knows both stages; neither knows it.

sizes.py   rows, bytes, files (pure)      estimate.py  room, hours, when a cache pays (pure)
text.py    how many tokens a text gives   probe.py     rates of the model, the codecs and a fit
disk.py    rates and room of a disk       run.py       request -> Estimate, measured
figures.py an Estimate as plain numbers, units in their names
"""
