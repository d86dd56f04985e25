"""What holds for all tests."""

import signal

from hypothesis import settings

# A busy machine is no failure of the code.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")

# A script's background job inherits these ignored, and Ctrl-C is among what is tested.
for number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
