"""Comparing prompts: heads whose readings change most from clean to suspect prompts, and a detector.

settings.py         prompts, positions, draws
compare.py          two sets of prompts -> heads ranked by their change
result.py           changes of heads, tokens and detectors
reading_change.py   how one reading changes: divergence, noise, tokens
prompt_sets.py      a prompt or a file of them
prompt_readings.py  distributions of one head, prompt by prompt
chance.py           how far apart by chance: labels shuffled, signs flipped
detectors.py        detectors, compared
detector_splits.py  prompts to fit a detector on, and to judge
prompt_scores.py    two scores of a prompt
refits.py           the contrast fitted again on drawn prompts
"""
