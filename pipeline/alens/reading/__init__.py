"""What people do with lenses: ask what a head says about a prompt. The model runs once a prompt.

lensed.py      lenses with their model loaded
reader.py      prompt -> top tokens of each head
ranking.py     lists by lift or probability, KL, entropy
sheet.py       prompts -> all that a page shows
sheet_data.py  what these numbers are
lines.py       text files that people write by hand
prompts.py     files of prompts
terms.py       words -> tokens
at_hand.py     what judging takes of the model, where it is
"""
