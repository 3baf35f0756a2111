"""Meaning without a download: texts to vectors, from one mapped 8 MB file.

* `wordpiece` cuts a text into word pieces exactly as BERT's uncased tokenizer does, in pure Python;
* `table` turns the pieces into 256 int8 (`Table.embed`), and one bit per dimension (`bits`) for the first look;
* `minilm` is the same interface over the teacher itself, for hubs (extra `hub`);
* `corpus` and `distill` made the table file; PROVENANCE.md says from what, how, and how good it is.

Importing this package imports nothing: numpy is paid for by whoever imports `node.embedding.table`.
"""
