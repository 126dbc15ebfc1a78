"""Settings of all tests."""

from hypothesis import settings

# No time limit for an example: how fast a machine is decides no test.
settings.register_profile("srlm", deadline=None, print_blob=True)
settings.load_profile("srlm")
