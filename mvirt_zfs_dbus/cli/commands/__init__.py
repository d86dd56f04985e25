"""The commands, one module for each kind of object. ``add`` puts them into the parser's tree."""
