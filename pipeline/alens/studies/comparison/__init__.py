"""Comparing prompts: heads whose readings change most from clean to suspect ones, and a detector.

settings.py         prompts, positions, draws
compare.py          two sets of prompts -> heads ranked by their change
reading_change.py   how one reading changes: divergence, noise, tokens
prompt_sets.py      a prompt or a file of them
prompt_readings.py  prompts run once, readings head by head
chance.py           how far by chance: labels shuffled, signs flipped
detectors.py        detectors beside each other
prompt_scores.py    two scores of a prompt
refits.py           the contrast fitted again on drawn prompts
"""
