"""What the three uses of lenses find on a model, and what it is worth: see `three_uses.py`."""
