"""How certain a figure is: bootstrap, permutation tests, divergences, ROC curves. This room knows nothing of lenses.

bootstrap.py      intervals, by drawing whole groups
groups.py         what intervals are over: documents or sequences
permutation.py    tests of many heads
corrections.py    p-values corrected for many heads
relabelling.py    statistics as chance would make them
signs.py          signs that prompts may take by chance
separation.py     ROC curves and figures from them
area.py           areas under ROC curves, with intervals
divergences.py    entropy, KL and Jensen-Shannon divergence
mean_readings.py  how far apart mean readings are
"""
