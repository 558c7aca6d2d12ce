"""Real clients and real servers that nobody here wrote, and what is needed to watch them talk."""
