"""Transfer: lenses on other heads of their model, and on a fine-tuned copy of it.

settings.py      heads, rows, what is matched
judged_rows.py   many readings of the same held-out rows
rebased.py       values of one head in the coordinates of another
transfer.py      lenses on other heads of their model
finetuned.py     lenses of a model on its fine-tuned copy
copy_figures.py  the figures of that, with intervals
"""
