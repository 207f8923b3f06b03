"""STAGE TWO: train lenses from a cache, with no model and no forward pass of one. In data order.

settings.py     what a fit can be asked for       recipe.py       what that means on a cache
plan.py         which shards, how many steps      batches.py      shards -> batches for this rank
narrow.py       fewer targets than cached         moments.py      of sites without statistics
module.py       designs and objective             objectives/     the losses
place.py        which process this is             meeting.py      where processes meet
distributed.py  the processes as a group          deepspeed_config.py  what DeepSpeed is told
engine.py       the DeepSpeed engine, its state   optimiser.py    averaged Adam
convergence.py  when a lens is trained no further curves.py       held-out losses so far, the best
divergence.py   losses that leave for good        kept.py         the best lenses so far
judging.py      held-out losses and figures       evaluations.py  what is said of them
trainer.py      one fit in progress               checkpoint.py   state on disk, whole or absent
writing.py      figures and the lens directory
marker.py       stopped on request                hold.py         the directory, held by all
run.py          the loop
"""
