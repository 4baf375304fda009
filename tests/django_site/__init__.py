"""A site of Django, as small as it can be, for the tests of its tasks."""
