"""Random messages, valid and nearly valid, for both parsers of the byte path, with h11 as judge."""
