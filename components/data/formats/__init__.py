"""From rows as people have them to rows with the columns of `components.data.rows`: one format a file.

`detect` finds the format of a file's rows by their columns, `mapping` makes rows of them.
"""
