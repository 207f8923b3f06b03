"""What the compression of a cache costs, and what other choices would: measured on the cache itself.

forms.py      the forms that z and targets can have     sample.py   rows to take figures on
targets.py    what compressed targets keep and lose      z_error.py  how far z is off
reencode.py   a cache -> the same rows in other forms    sizes.py    bytes a row, written and counted
probe.py      lenses fitted to each form, judged alike   measure.py  all of it, as one `Fidelity`
"""
