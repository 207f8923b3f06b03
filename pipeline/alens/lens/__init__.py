"""What stage two produces: trained lenses, usable alone. Knows neither training nor the command line.

designs/      the forms a lens can take
maps.py       what a fitted lens does to a value
marks.py      the mark of lenses that say nothing
whitening.py  coordinates in which fitting is easy
record.py     lens.json, and its files checked
lenses.py     the lens directory
"""
