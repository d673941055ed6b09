"""Raw files to checked interactions: archives and logs in, blocks of rows of known columns out.

Read interactions.py first. It joins raw.py (files, archives), formats.py (what kind of log it is), times.py,
tables.py (a kind to columns, by parse.py and nested.py) and rows.py (columns to interactions). A new reader
is chosen in tables.py, guessed in formats.py, named in the schema of datasets.
"""
