"""Causal bases: the directions of z that a lens depends on most, and whether the model depends on them too.

settings.py          directions, ablations, rows
causal_basis.py      what lenses rest on, and whether the model does too
study.py             what a study works on, checked
result.py            figures by basis, head and layer
held_out_sample.py   rows to search on, sequences to measure on
subspaces.py         directions of z, and removing them
head_bases.py        the bases of each head
direction_search.py  the most influential directions of a lens
measured_bases.py    influences of each basis
lens_influence.py    ablations -> change of a reading
model_influence.py   ablations -> change of the model's output
causal_fidelity.py   rank correlation of influences, by basis and layer
basis_file.py        directions as safetensors
"""
