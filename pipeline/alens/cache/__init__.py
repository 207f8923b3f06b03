"""STAGE ONE: run the model once over the text and write what every head computes. In data order.

held_out_documents.py  which documents are held out, how many sequences each side gives
passages.py            a few passages out of a long text
token_sequences.py     text -> token rows
target_compression.py  final residuals -> compressed targets
shard.py               one shard, tokens to arrays
row_collector.py       device -> rows of a shard, without waiting
plan.py                which shards this worker writes (pure)
request.py             what is asked for
prepare.py             tokens, skeleton, plan: made once
provenance.py          host and versions
write_cache.py         plan -> forward -> write, resumable
recompute.py           some rows again, beside what is stored
recompute_targets.py   stored targets beside the model's logits
tolerance.py           how far rounding may take them apart
array_differences.py   the largest of each array
"""
