"""What people fit lenses for, beyond one prompt: studies of heads. The model runs here.

location     which heads raise some terms on some prompts         basis      directions a lens depends on
comparison   what changes from clean to suspect prompts           transfer   lenses on other heads, or a copy
injection    a direction added at a head, heads taken away
"""
