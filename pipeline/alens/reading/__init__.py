"""What people do with lenses: ask what a head says about a prompt. The model runs once a prompt.

lensed.py      lenses with their model loaded     reader.py    a prompt -> the top tokens of each head
ranking.py     lists by lift or probability       sheet.py     prompts -> all that a page shows
prompts.py     files of prompts (lines.py)        terms.py     words -> the tokens that stand for them
within_text.py tokens as they are within a text
edits.py       the model run with heads changed   at_hand.py, token_bytes.py   what judging takes of the model
"""
