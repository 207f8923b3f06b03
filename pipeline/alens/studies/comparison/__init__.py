"""Comparing prompts: heads whose readings change most from clean to suspect ones, and a detector.

compare.py           the study               change.py        how one reading changes
prompt_sets.py       prompts and labels      prompt_readings.py   what heads say of them
divergence.py        between mean readings   chance.py           what chance gives
detection.py, detector.py, roc.py   can the two be told apart
"""
