"""Sweeps: many fits of one cache, those that read the same rows from one read, and a table of how they do.

grid.py         configuration -> variants (pure)
plan.py         variants, checked; who reads the same rows; whose they are
memory.py       how many at once
shared.py       one read -> the batch of each fit
member.py       one variant while the sweep runs
run.py          the loop
judge.py        KL by document or sequence, and the result of a variant
table.py        results -> table, intervals
table_files.py  the table as files
"""
