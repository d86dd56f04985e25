"""How fast and how large: ours and the peers in one run. ``make bench``; README.md has figures."""
