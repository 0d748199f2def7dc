from tests.unit.cli.jobs.shelf import operator, shelf

__all__ = ["operator", "shelf"]
