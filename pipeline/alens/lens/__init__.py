"""What stage two produces: trained lenses, usable alone. Knows neither training nor the command line.

designs/    the form of the map            whitening.py  coordinates in which fitting is easy
saved.py    the lens directory: JSON and safetensors
"""
