"""Accelerator cards: find them, pin a worker to each, watch, drain, check.

find.py asks the bus, sensors.py the card vendor's program; post.py is what a worker knows of its card, watch.py keeps it true;
supervise.py runs one worker per card, check.py walks through a card's set-up.
"""
