"""A pytest plugin (``-p tests.support.four_threads``): theta works on four threads on any machine."""

import os

os.cpu_count = lambda: 4
