"""Lenses go out in the paper's form or to the hub, and come in from the programs that others published.

request.py             the requests of import, export and publish
published.py           the lenses of another program, and the interface of their readers
alens_export.py        reader of directories that `alens export` wrote
tuned_lens.py          reader of tuned-lens directories
jacobian_lens.py       reader of files of Jacobian lenses, of layers or of heads
attention_lens.py      reader of AttentionLens checkpoints
weights_only.py        files of torch, opened without running code in them
import_lenses.py       published lenses -> a lens directory
export.py              lenses -> the paper's form
safetensors_stream.py  a safetensors file, written with one tensor in memory
model_card.py          the model card of an export
bundle.py              lenses -> the files that go to the hub
lens_card.py           the model card of a bundle
addition_card.py       what it says of effect and Jacobian lenses
held_out_figures.py    held-out figures of a bundle: a heat map, JSON
local_paths.py         paths of this machine, left out of what is published
markdown.py            text of others, quoted in Markdown
upload.py              files -> one commit on the hub
folder.py              a directory, whole or absent
"""
