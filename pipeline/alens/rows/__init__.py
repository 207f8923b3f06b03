"""What fitting and judging read of a cache: rows in memory, and the distributions that lenses are held against.

columns.py        what fitting and judging read of a shard
held_out_rows.py  rows that no fit has seen
teacher.py        the final distributions, compressed or exact
agreement.py      the same most probable tokens, under ties
final_norm.py     what stands between residual stream and unembedding
row_scales.py     what norms divide by at some rows
direct_write.py   what a head writes by itself, in logits
narrow.py         targets as if fewer had been cached
moments.py        means and covariances
moment_sums.py    the sums from which they are made
"""
