"""Sweeps: many fits of one cache, which share a read of the same rows, and a table that compares them.

variants.py     configuration -> variants (pure)
request.py      the request to run a sweep
planned.py      variants, checked; which of them share a read; which are a worker's
sweep_json.py   which sweep a directory holds
rounds.py       how many fit into memory at once
shared_rows.py  one read -> the batch of each fit
member.py       one variant while the sweep runs
many_fits.py    the loop over steps
result.py       a variant, judged on the held-out rows of the sweep
table.py        results -> table, intervals
table_files.py  the table as files
"""
