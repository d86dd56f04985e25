"""Datasets with all that is below them."""

from __future__ import annotations

import subprocess
import tempfile

_DESTROY = """
local root = ...
root = root["argv"][1]
local function destroy(name)
  local below = {}
  for child in zfs.list.children(name) do below[#below + 1] = child end
  for _, child in ipairs(below) do destroy(child) end
  local snapshots = {}
  for snapshot in zfs.list.snapshots(name) do snapshots[#snapshots + 1] = snapshot end
  for _, snapshot in ipairs(snapshots) do zfs.sync.destroy(snapshot) end
  zfs.sync.destroy(name)
end
local tries = 0
while zfs.exists(root) and tries < 9 do  -- what has clones goes after them
  destroy(root)
  tries = tries + 1
end
"""


def destroy(root: str) -> None:
    """Once udev has looked at them all. Where `zfs destroy -R` takes a transaction group for each
    dataset, this takes one for all but for what is busy."""
    subprocess.run(["udevadm", "settle"], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as program:
        program.write(_DESTROY)
        program.flush()
        command = ["zfs", "program", root.partition("/")[0], program.name, root]
        subprocess.run(command, capture_output=True, check=True)
    if subprocess.run(["zfs", "list", root], capture_output=True, check=False).returncode == 0:
        subprocess.run(["zfs", "destroy", "-R", root], check=True)
