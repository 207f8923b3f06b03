"""Stage two: trains lenses from a cache, with no model and no forward pass.

The data path. A row is one position of one sequence: N rows, L layers, H heads, E width of the values (d_head for z),
F features, U losses of a layer (one for each head, or one for the layer), V vocabulary.

1. Ask. In: CACHE, LENSES, settings. Out: a `FitRequest`. `settings`
2. Plan. In: the request, the open cache. Out: `fit.json`: steps, layers, heads, the shards to train on and those that
   are held out. `fit_plan.resolve`, `training_shards.choose_shards`
3. Prepare. In: settings, the moments of z, (H, E) and (H, E, E) a layer, with the final residual, (H, E, D), and the
   mean output, (V). Out: whitening, a design a layer at its start, an objective, the readers of rows.
   `recipe.Recipe`, `start`
4. Batch. In: the arrays of shards. Out: for each step and process z, (N, H, E) float16 a layer, and the targets of its
   rows. `batches.BatchStream`
5. Step. In: a batch. Out: losses, (L, U) float32; parameters moved by Adam, and their averages.
   `trainer.Trainer.step`, `lens_module.LensModule`, `objectives`, `engine.Engine`, `optimiser.AveragedAdam`
6. Evaluate. In: averaged parameters, some held-out rows. Out: a held-out loss of each lens and a line of `log.jsonl`;
   the maps of lenses that are at their best, kept on the CPU; which lenses are trained no further.
   `trainer.Trainer.evaluate`, `judging`, `curves`, `convergence`, `best_maps`
7. Save. In: parameters, moments, curves, best maps. Out: `checkpoints/step-NNNNNNNN`, from which a fit goes on.
   `checkpoints.save`
8. Finish. In: the best maps of each layer, (H, E, V) and (H, V) float32 for a linear lens, and all held-out rows. Out:
   figures of each head, `layer-NN.safetensors`, `lens.json`. `final_lenses.put_lenses`, `alens.lens.directory`

`training_loop.fit_lenses` goes through these steps on every process of a fit.

settings.py          settings and request of a fit
training_shards.py   which shards are trained on, which are held out
fit_plan.py          the request, resolved against the cache
recipe.py            settings on a cache: objective, readers, designs
start.py             the closed form or the mean output
plugin.py            designs and objectives by name, also your own
batches.py           shards -> batches for this process, resumable
lens_module.py       designs and objective as a torch module
objectives/          the losses
engine.py            the DeepSpeed engine and its state
deepspeed_config.py  the configuration that DeepSpeed gets
optimiser.py         Adam, its iterates averaged
divergence_watch.py  training losses that diverge
judging.py           held-out losses on the way, figures at the end
curves.py            the held-out losses of all lenses so far
convergence.py       when one lens is trained no further
best_maps.py         the best maps of each lens so far
evaluation_log.py    what the log says about an evaluation
checkpoints.py       state on disk, whole or absent
step_notes.py        what a fit says of its last step
trainer.py           one fit in progress: steps, evaluations, checkpoints
untrained.py         a design that is whole at its start
addition_fit.py      what fits of effect and Jacobian lenses share
effect_fit.py        effect lenses, from measured effects
jacobian_fit.py      Jacobian lenses, from measured Jacobians
final_lenses.py      what a fit ends with: figures, and the lens directory
layer_groups.py      layers one after the other, where memory holds only some
training_loop.py     `alens fit`: everything above in order
launch.py            which of the processes of a fit this is
rendezvous.py        where the processes meet, and who waits for whom
distributed.py       the processes as a group
hold.py              the directory, held by all processes together
"""
