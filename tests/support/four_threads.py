"""A pytest plugin (``-p tests.support.four_threads``) that lets theta use four threads on any machine."""

import os

os.cpu_count = lambda: 4
