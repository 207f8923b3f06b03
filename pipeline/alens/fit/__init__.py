"""STAGE TWO: train lenses from a cache, with no model and no forward pass of one. In data order.

settings.py          what a fit can be asked for
split.py             which shards are trained on, which are held out
plan.py              which shards, how many steps
batches.py           shards -> batches for this process, resumable
recipe.py            settings on a cache: objective, readers, designs
module.py            designs and objective, as a torch module
objectives/          the losses
place.py             which of the processes of a fit this is
meeting.py           where they meet, and who waits for whom
distributed.py       the processes of a fit, as a group
engine.py            the DeepSpeed engine and its state
deepspeed_config.py  what DeepSpeed is told
optimiser.py         Adam, its iterates averaged
convergence.py       when a lens is trained no further
divergence.py        training losses that leave for good
curves.py            held-out losses so far, and the best
kept.py              the best lenses so far
judging.py           held-out losses, and figures at the end
evaluations.py       what is said of an evaluation
checkpoint.py        state on disk, whole or absent
hold.py              the directory, held by all processes of a fit
marker.py            stopped on request: what a job script asks
trainer.py           one fit in progress: steps, evaluations, checkpoints
writing.py           figures and the lens directory, at the end
run.py               the loop
plugin.py            designs and objectives by name, also of your own
"""
