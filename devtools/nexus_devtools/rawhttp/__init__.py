"""Raw HTTP/1.1 peers that follow a script: what a byte path is tested with, on both sides."""
