"""The parts of `benchmarks/published.py`: the published training step beside `alens`.

recipe.py  which fault is mended      text.py   batches of sentences or of packed sequences
step.py    the step, and its lenses   judge.py  held-out KL of every head, the same rows for all
race.py    steps against a clock      clock.py  wall or CPU time
ours.py    `alens`, from a cache and with the model in the loop
report.py  levels, ratios, tables
"""
