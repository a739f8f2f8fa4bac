"""Work on checkpoints that is spread over processes or machines, by any ``concurrent.futures.Executor``."""
