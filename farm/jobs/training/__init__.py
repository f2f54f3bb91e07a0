"""Training as work of the farm: datasets.py brings prepared sets in and out, submit.py makes a row, record.py moves it, look.py reads it.

The farm does not know the trainer: it stores a config it cannot read, figures it does not compute and checkpoints it never opens.
"""
