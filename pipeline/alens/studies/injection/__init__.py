"""Activation engineering: a direction added at a head, or heads taken away, and what the model then does.

inject.py, ablate.py   the studies       result.py       what they find
directions.py          tokens -> directions    typical.py  what a head writes as a rule
changes.py, effects.py, perplexity.py   what a change does, and costs
"""
