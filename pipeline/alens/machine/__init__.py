"""What the machine gives, and how to use it well: threads, device, products, blocks of memory. Knows no model and no cache.

blocks.py        how many rows have their logits in memory at once
device.py        auto, cpu, cuda
products.py      float32 products by the faster library
side_by_side.py  independent work, one thread a piece
threads.py       as many as the job was given
top_tokens.py    the most probable tokens, in one pass
"""
