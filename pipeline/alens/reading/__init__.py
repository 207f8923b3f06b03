"""Reading prompts with lenses: what does a head say about a prompt? The model runs once for each prompt.

lensed_model.py    lenses with their model loaded
settings.py        what lists can be asked for
head_writes.py     what heads write, in logits
head_says.py       what heads say by any of their readings, as distributions
head_attention.py  where heads look
head_reader.py     a prompt -> the top tokens of each head
read.py            lenses and prompts -> a page, in one call
result.py          the result of a reading
worth_reading.py   which heads come first in tables
written_lists.py   the tokens that heads raise, lower and suppress
ranking.py         lists of tokens by lift or probability
own_moments.py     what lenses say on average: the base of lists by own lift and z-score
page_reader.py     prompts -> all that a page shows
page_prompt.py     one prompt of a page
page_tokens.py     the tokens and numbers of a page
page_writes.py     what heads write and their effects, on a page
page_stream.py     what the model would say after each layer, on a page
page_data.py       the numbers of a page
text_file.py       text files that people write by hand
prompts.py         files of prompts
chat.py            conversations as prompts, and their turns
given.py           what was given to a study in Python
terms.py           words -> tokens
model_parts.py     the parts of the model that help to judge lenses
"""
