"""What an HTTP/1.1 proxy does between awkward peers: cases, a player, and nginx as the oracle."""
