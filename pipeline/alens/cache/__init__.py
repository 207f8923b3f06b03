"""STAGE ONE: run the model once over the text and write what every head computes. In data order.

held_out.py           which documents are held out, how many sequences each side gives
passages.py           a few passages out of a long text
tokens.py             text -> token rows
targets.py            final residuals -> compressed targets
shard.py              one shard, tokens to arrays
collect.py            device -> rows of a shard, without waiting
plan.py               which shards this worker writes (pure)
request.py            what is asked for
prepare.py            tokens, skeleton, plan: made once
provenance.py         host and versions
run.py                plan -> forward -> write, resumable
recompute.py          some rows again, beside what is stored
recompute_targets.py  stored targets beside the model's logits
tolerance.py          how far rounding may take them apart
differences.py        the largest of each array
"""
