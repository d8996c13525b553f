"""Masks on weights: Piggyback (`binary`), PackNet (`packnet`), parts by task (`parts`), files and analyses."""
