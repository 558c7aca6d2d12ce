"""The quality domain: outcomes, windows, verdicts, breakers.

Everything here is pure: no I/O, no clock, no framework. Time is a number handed in, chance a
function handed in. Operator, proxy, standalone mode and simulation run this same code.
"""
