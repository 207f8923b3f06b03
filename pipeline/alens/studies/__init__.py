"""What people fit lenses for, beyond one prompt: studies of heads. The model runs here.

compare.py           two sets of prompts -> heads ranked by their change
change.py            how one reading changes
prompt_sets.py       a prompt or a file of them        prompt_readings.py  prompts run once, read head by head
divergence.py        how far apart, and its noise      detection.py        detectors beside each other
detector.py          two scores of a prompt            roc.py              ROC curves and areas
"""
