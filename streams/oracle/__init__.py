"""The oracle: what every live ranking should be, by an offline replay of the input topics.

It shares nothing with the engine but validation, the pure feature functions, the codec of the wire, the order of a
ranking, the vector of a user and the model. So it is wrong only where those are, and each has tests of its own.

    log.py          partitions of Kafka, read to their end as of now
    replaying.py    messages -> states of products, users and result sets          (pure)
    expecting.py    states + model -> what should stand in `rankings`              (scorer and media passed in)
    comparing.py    what stands and what should: rankings, rows, dead letters      (pure)
    report.py       the verdict
    verifying.py    wait until the engine is quiet, then all of the above
"""

from streams.oracle.report import VerifyReport
from streams.oracle.verifying import verify

__all__ = ["VerifyReport", "verify"]
