"""STAGE ONE: run the model once over the text and write what every head computes. In data order.

text.py         corpus -> documents               tokens.py   documents -> token rows
model.py        the frozen model                  plan.py     which shards this worker writes (pure)
activations.py  token rows -> z, final residuals  targets.py  final residuals -> compressed targets
shard.py        one shard, tokens to arrays       run.py      plan -> forward -> write, resumable
"""
