"""Plain scripts for the vendor's Python 3.8: each imports NumPy, the vendor's own modules and nothing of this project."""
