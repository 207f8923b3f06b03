"""What the machine offers, and how to use it well: CPUs, memory, device, matrix products. Knows neither model nor
cache.

allotment.py     CPUs and memory that the job was given, and as many threads
device.py        auto, cpu, cuda
blocks.py        how many rows have their logits in memory at once
logit_tiles.py   logits of an affine map, a tile at a time
products.py      float32 products by the faster library
replaced.py      an attribute with another value, for the time of a block
side_by_side.py  independent pieces of work, one thread each
software.py      host and versions
top_tokens.py    the most probable tokens, in one pass
"""
