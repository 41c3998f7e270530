"""What every part agrees on: the table's contract, settings, errors, partitions, rejections.

Imports no Spark and nothing else of ours, so that everything may import it.
"""
