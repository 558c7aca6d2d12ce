"""The proxy's read-only view of the Kubernetes API: list and watch over httpx, nothing else."""
