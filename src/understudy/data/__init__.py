"""Data folders: text as token files (text/), messages as JSON lines (chat/), and their batches.

records.py reads files of records, find.py finds local files, fetch/ downloads,
quality/ cleans text, generated.py has the generated corpora.
"""
