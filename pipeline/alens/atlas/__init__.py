"""Every head on a page of its own: an atlas of static pages, over the rows of a cache. Knows the pages of one reading's
numbers and colours, and no other study.

settings.py       what can be asked for
make_atlas.py     lenses and a cache -> a directory of pages
chosen_rows.py    the rows that heads are read with
row_text.py       the text around a row
head_reading.py   one head, at all rows and at those that are shown
head_pass.py      the pass over its rows, a block at a time
listed_tokens.py  its tokens over all rows
token_peaks.py    the most that it raises and lowers each token
token_index.py    the heads that write each token
strong_rows.py    which rows are shown
judged_heads.py   its figures
roles.py          its place in families of heads
likeness.py       the heads that write alike
atlas_head.py     what the page of a head shows
facts.py          what every page says about its numbers
head_page.py      that page
index_page.py     the grid of all heads
markup.py         pieces of pages
style.py          their style
atlas_folder.py   the directory, whole or absent
result.py         the result
"""
