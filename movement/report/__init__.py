"""The page: what the gold tables and the ledger say, as one HTML file, or served live.

`gold` and `pipeline` read the lake into `model`; `slices`, `packing` and `geometry` make it small; `page` writes HTML.
"""
