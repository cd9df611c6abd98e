"""The tests, and their run-time type checker: beartype with the numeric tower of PEP 484 (an int is a valid float)."""

from beartype import BeartypeConf, beartype

numeric = beartype(conf=BeartypeConf(is_pep484_tower=True))
