"""The public API's classes; ``theta`` gives them their names."""
