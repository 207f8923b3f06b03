"""Numbers as pictures that stand alone: PNG files, and HTML pages that load nothing.

page.py           the frame of every page
png.py            figures of matplotlib as files
reading_page.py   the page of a reading
heat_map.py       figures of heads as a grid
dose_response.py  curves of strength
roc_curves.py     ROC curves
"""
