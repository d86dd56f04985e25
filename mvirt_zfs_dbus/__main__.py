"""``python -m mvirt_zfs_dbus`` is the service."""

import sys

from .daemon import main

sys.exit(main())
