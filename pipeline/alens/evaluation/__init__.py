"""How well lenses read: held-out figures for each head beside baselines.

settings.py         what can be asked for
evaluate.py         lenses on a cache, beside baselines
layers_in_turn.py   a group of layers after the other
judge.py            the loop over held-out rows
readings.py         what gives logits
reference.py        what readings are held against
sums.py             figures, summed over rows and groups of rows
tile_figures.py     the figures of affine readings, a tile of logits at a time
panel.py            which readings are judged side by side
choice.py           which baselines are made
baselines.py        each of these readings
scaled_write.py     the mean output and a scalar times what a head writes
regressed.py        baselines in closed form, on other rows
additions.py        what readings say that a head adds to the logits
effect_figures.py   additions held against measured effects
effect_judge.py     the rows on which effects were measured
judged_effects.py   the result of that
reading_figures.py  sums -> figures, intervals, differences
result.py           the result of an evaluation
shards.py           which shards lenses are judged on
training.py         which sequences they were trained on
"""
