"""The run-time type checker of the tests: beartype, with an int accepted where a float is meant, as everywhere."""

from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
