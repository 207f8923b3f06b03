"""Numbers as pictures that stand alone: PNG files, and HTML pages that load nothing.

heat_map.py   figures of heads as a grid: PNG or HTML    page.py   the frame of every HTML page
roc.py        ROC curves: PNG
"""
