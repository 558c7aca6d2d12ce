"""Several processes that are one proxy: a parent that knows and tells, workers that serve."""
