"""What attempts cost: usage read from answers, prices, and the budget's limits."""
