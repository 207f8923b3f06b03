"""STAGE TWO: train lenses from a cache, with no model and no forward pass of one. In data order.

settings.py          what a fit can be asked for
split.py             which shards are trained on, which are held out
fit_plan.py          which shards, how many steps
batches.py           shards -> batches for this process, resumable
recipe.py            settings on a cache: objective, readers, designs
lens_module.py       designs and objective, as a torch module
objectives/          the losses
launch.py            which of the processes of a fit this is
rendezvous.py        where they meet, and who waits for whom
distributed.py       the processes of a fit, as a group
engine.py            the DeepSpeed engine and its state
deepspeed_config.py  what DeepSpeed is told
optimiser.py         Adam, its iterates averaged
convergence.py       when a lens is trained no further
divergence_watch.py  training losses that leave for good
curves.py            held-out losses so far, and the best
best_maps.py         the best lenses so far
judging.py           held-out losses, and figures at the end
evaluation_log.py    what is said of an evaluation
checkpoints.py       state on disk, whole or absent
hold.py              the directory, held by all processes of a fit
trainer.py           one fit in progress: steps, evaluations, checkpoints
final_lenses.py      figures and the lens directory, at the end
training_loop.py     the loop
plugin.py            designs and objectives by name, also of your own
"""
