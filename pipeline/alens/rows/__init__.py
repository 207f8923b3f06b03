"""What fitting and judging read of a cache: rows in memory, and the distributions that lenses are held against.

columns.py     what fitting and judging read of a shard
teacher.py     the final distributions, compressed or exact
final_norm.py  what stands between residual stream and unembedding
narrow.py      targets as if fewer had been cached
moments.py     mean and covariance of a residual site
"""
