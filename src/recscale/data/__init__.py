"""Raw files to checked interactions: archives and logs in, blocks of rows of known columns out.

Read raw.py (files and archives), formats.py (what kind of log it is), parse.py (text to columns) and
interactions.py, which joins them; a new reader of logs is a function of parse.py, chosen in
interactions.py. fetch.py finds or downloads; filters.py and spill.py leave out rows in bounded memory.
"""
