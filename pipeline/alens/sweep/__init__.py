"""Sweeps: many fits of one cache, those that read the same rows from one read, and a table of how they do.

variants.py     configuration -> variants (pure)
request.py      what a sweep is asked for
planned.py      variants, checked; who reads the same rows; whose they are
sweep_json.py   which sweep a directory holds
rounds.py       how many at once
shared_rows.py  one read -> the batch of each fit
member.py       one variant while the sweep runs
many_fits.py    the loop
result.py       KL by document or sequence, and the result of a variant
table.py        results -> table, intervals
table_files.py  the table as files
"""
