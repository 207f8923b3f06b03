"""Transfer: lenses on other heads of their model, and on a fine-tuned copy of it.

transfer.py     heads on heads          finetuned.py     a model on its copy
rebased.py      a lens in another head    judged.py, copy_figures.py   how well it reads there
"""
