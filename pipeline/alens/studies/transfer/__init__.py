"""Transfer: lenses on other heads of their model, and on a fine-tuned copy of it.

settings.py      heads, rows, what is matched
transfer.py      lenses on other heads of their model
finetuned.py     lenses of a model on its fine-tuned copy
result.py        matrices of heads and of layers
judged_rows.py   many readings of the same held-out rows
rebased.py       values of one head in the coordinates of another
copy_figures.py  figures on a copy, beside those at home
"""
