"""A pytest plugin (``-p tests.support.four_threads``) that lets theta use four threads on any machine."""

import os

os.sched_getaffinity = lambda _: {0, 1, 2, 3}
