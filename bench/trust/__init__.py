"""Endurance: campaigns that try to make theta lose, mistake or run something, and the table of them.

``python -m bench.trust --hours H --seed S`` runs all of them side by side and adds what was run to the table,
``bench/trust/table.json``, of which ``theta/docs/trust.md`` is made.  A campaign is a class of
:mod:`bench.trust.campaigns`: cases that follow from a seed and a number, each of which can be run alone.
"""
