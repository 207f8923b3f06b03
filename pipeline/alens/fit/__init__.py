"""STAGE TWO: train lenses from a cache, with no model and no forward pass of one. In data order.

settings.py     what a fit can be asked for       plan.py         which shards, how many steps
batches.py      shards -> batches for this rank   module.py       whitened lenses and objective
objectives/     the losses                        distributed.py  one process or many
engine.py       the DeepSpeed engine, its state   checkpoint.py   state on disk, whole or absent
marker.py       stopped on request                run.py          the loop
"""
