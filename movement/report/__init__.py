"""The report page: travel times and the state of the pipeline, as one HTML file or served live.

`gold` and `pipeline` read the lake into `model`; `content`, with `packing` and `geometry`, encodes it for the page;
`page` writes the HTML; `live` serves it.
"""
