"""What holds for all tests."""

import os
import signal

from hypothesis import settings

# A busy machine is no failure of the code.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")

# A script's background job inherits these ignored, and Ctrl-C is among what is tested.
for number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

# pytest-xdist tells its workers how wide the terminal is; a client that is tested looks for itself.
os.environ.pop("COLUMNS", None)
