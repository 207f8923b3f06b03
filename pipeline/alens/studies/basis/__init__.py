"""Causal bases: the directions of z that a lens depends on most, and whether the model depends on them too.

causal_basis.py       the study                 search.py, subspaces.py   directions
influence.py          on the lens               ablation.py                     on the model
fidelity_of_ranks.py  do the two agree          figures.py, basis_file.py what is shown and saved
held_out_sample.py    rows and sequences
"""
