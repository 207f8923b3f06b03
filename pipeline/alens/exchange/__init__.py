"""Lenses go out in the paper's form, and come in from the programs that others published.

export.py              lenses -> the paper's form
safetensors_stream.py  safetensors, one tensor in memory
model_card.py          the model card
folder.py              a directory, whole or absent
bundle.py              lenses -> what goes to the hub
lens_card.py           its model card
upload.py              one commit of it on the hub
held_out_figures.py    its figures: a heat map, JSON
local_paths.py         paths of this machine, left out of it
import_lenses.py       published lenses -> a lens directory
attention_lens.py      checkpoints of the published code
tuned_lens.py          directories of tuned-lens
alens_export.py        directories of alens export
published.py           what those three give
weights_only.py        torch files, and no code in them
markdown.py            text of others in cards and tables
"""
