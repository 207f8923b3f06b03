"""Numbers as people see them: as text, as PNG files, and as HTML pages that load nothing.

page.py           the frame of every page
framed.py         a page inside another one
png.py            figures of matplotlib as files
reading_page.py   the page of a reading
numbers.py        numbers as text
colour_limits.py  the ends of a scale of colours
head_grid.py      numbers of heads by layer and head
heat_map.py       such a grid as a picture or a page
dose_response.py  curves of strength
roc_curves.py     ROC curves
"""
