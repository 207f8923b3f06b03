"""Studies of heads, most with lenses on more than one prompt. The model runs here.

injection/        a direction added at a head, heads taken away
location/         which heads raise some terms
transfer/         lenses on other heads, and on a copy of the model
comparison/       what changes from clean to suspect prompts
families/         what each head does, without lenses
basis/            directions a lens depends on, and the model's use of them
prompt_values.py  prompts run once, and what heads hold on them
"""
