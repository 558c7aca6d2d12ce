"""``make demo``: the product at work on a real API server, measured while one watches."""
