"""Numbers as pictures that stand alone: PNG files, and HTML pages that load nothing.

page.py        the frame of every HTML page       reading_page.py    the page of `alens read --html`
heat_map.py    figures of heads: PNG or HTML      dose_response.py   curves of strength: PNG
roc.py         ROC curves: PNG                    png.py             figures of matplotlib as files
"""
