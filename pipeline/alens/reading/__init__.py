"""What people do with lenses: ask what a head says about a prompt. The model runs once a prompt.

lensed_model.py  lenses with their model loaded
head_reader.py   prompt -> top tokens of each head
result.py        what a reading holds
ranking.py       lists by lift or probability, KL, entropy
page_reader.py   prompts -> all that a page shows
page_data.py     what these numbers are
text_file.py     text files that people write by hand
prompts.py       files of prompts
terms.py         words -> tokens
model_parts.py   what judging takes of the model, where it is
"""
