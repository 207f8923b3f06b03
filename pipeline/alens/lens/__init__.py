"""What stage two produces: trained lenses, usable alone. This room knows neither training nor the command line.

designs/              the forms a lens can take
maps.py               what a fitted lens does to a value
unembedded_maps.py    the form that ends in the unembedding
lens_forms.py         all forms, by name
marks.py              the mark of lenses that say nothing
whitening.py          coordinates in which fitting is easy
closed_form.py        lenses from moments, without a fit
effect_regression.py  the map of an effect lens, from measured effects
bias_shift.py         what the bias of a map into the unembedding lacks
record.py             what lens.json holds
directory.py          where the files of a lens directory are, and how they are written
recorded_lenses.py    a lens directory opened: its record, its files checked
lenses.py             the same with its tensors
effect_lenses.py      the same for effect lenses, which say what a head adds to logits
"""
