"""What people do with lenses: ask what a head says about a prompt. The model runs once a prompt.

reader.py   a prompt -> the top tokens of each head, by the lens and by the unembedding
"""
