"""What holds for all tests."""

from hypothesis import settings

# A busy machine is no failure of the code.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")
