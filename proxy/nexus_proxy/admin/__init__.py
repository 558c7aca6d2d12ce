"""The proxy's own small HTTP server: health, metrics, statistics, explanations. Never on the
hot path.
"""
