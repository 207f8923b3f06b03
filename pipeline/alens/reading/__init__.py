"""What people do with lenses: ask what a head says about a prompt. The model runs once a prompt.

lensed.py    lenses with their model loaded       reader.py    a prompt -> the top tokens of each head
prompts.py   files of prompts                     terms.py     words -> the tokens that stand for them
edits.py     the model run with heads changed      ranking.py    lists by lift or probability, KL, entropy
sheet.py     prompts -> all that a page shows
"""
