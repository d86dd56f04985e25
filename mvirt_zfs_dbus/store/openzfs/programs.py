"""The channel programs that read (zfs-program(8)), and what those that change something answer.

A program runs with the pool's configuration locked, so that it sees one moment. Names come in as
arguments and are never written into the text.

Every property costs: the kernel looks its dataset up anew for each. Ours are asked for one by one
all the same, because that needs only the dataset's entry in the pool; ``zfs.list.user_properties``
opens the dataset, and the kernel panics where that fails (``VERIFY0`` in zcp_user_props_list).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .properties import PIECE, PREFIX

INSTRUCTION_LIMIT: Final = 100_000_000
MEMORY_LIMIT: Final = 100 * 1024 * 1024
"""The most zfs-program(8) allows."""

COMMON: Final = f"""
local argv = (...)["argv"]

-- What is set on this very dataset; user properties are inherited.
local function own(dataset, key)
  local value, source = zfs.get_prop(dataset, "{PREFIX}" .. key)
  if value ~= nil and (source == dataset or source == "$recvd") then return value end
end

local function ours(dataset)
  local kind = own(dataset, "kind")
  return (kind == "volume" or kind == "template") and own(dataset, "state") ~= "deleted"
end

-- Whether the kernel can open it. Where it cannot, asking for the snapshots is a panic (VERIFY0 in
-- zcp_snapshots_iter), and what can only be read from there is no error but nothing.
local function readable(dataset)
  return (zfs.get_prop(dataset, "volsize")) ~= nil
end

local function deferred(snapshot)
  return (zfs.get_prop(snapshot, "defer_destroy")) == "on"
end
"""

_ROWS: Final = """
local function packed(values)
  local parts = {}
  for key, value in pairs(values) do
    value = tostring(value)
    parts[#parts + 1] = #key .. ":" .. key .. #value .. ":" .. value
  end
  return table.concat(parts)
end

local function add(row, dataset, properties)
  for _, property in ipairs(properties) do
    row[property] = (zfs.get_prop(dataset, property))
  end
  return row
end

-- When it was made, by ZFS's own word, should ours be missing.
local function dated(row, name)
  if not row["created"] then add(row, name, {"creation"}) end
  return row
end

local function snapshot(name)
  local kind = own(name, "kind")
  if kind ~= "snapshot" then return packed({kind = kind}) end
  local row = {kind = kind, name = own(name, "name"), created = own(name, "created")}
  add(row, name, {"createtxg", "defer_destroy", "volsize", "used", "referenced", "compressratio"})
  return packed(dated(row, name))
end
"""

SCAN: Final = (
    COMMON
    + _ROWS
    + f"""
local skip = argv["skip"] or {{}}

local function whole(dataset, key)
  local text = own(dataset, key)
  local piece, number = text, 0
  while piece and #piece == {PIECE} do
    number = number + 1
    piece = own(dataset, key .. "-" .. number)
    text = text .. (piece or "")
  end
  return text
end

local function dataset(name)
  local kind = own(name, "kind")
  if kind ~= "volume" and kind ~= "template" then return nil end
  local row = {{kind = kind}}
  for _, key in ipairs({{"name", "created", "state", "source", "checksum", "labels"}}) do
    row[key] = whole(name, key)
  end
  if kind == "template" then row["source-volume"] = own(name, "source-volume") end
  add(row, name, {{"volsize", "volblocksize", "used", "referenced", "compressratio",
                 "refreservation", "origin"}})
  if argv["snapshot"] then
    local wanted = name .. "@" .. argv["snapshot"]
    if not skip[wanted] and zfs.exists(wanted) then row[wanted] = snapshot(wanted) end
  elseif row["volsize"] ~= nil then
    for found in zfs.list.snapshots(name) do
      if not skip[found] then row[found] = snapshot(found) end
    end
  end
  return packed(dated(row, name))
end

local found = {{}}
for _, name in pairs(argv["names"]) do
  if not skip[name] and zfs.exists(name) then found[name] = dataset(name) end
end
return {{datasets = found}}
"""
)
"""The datasets called ``names`` that are ours, with what ZFS and we know, but for the datasets and
snapshots in ``skip``. With ``snapshot`` of each dataset only the one called that, for a dataset may
have hundreds.

Each dataset is one text, see ``rows.fields``, for the binding takes long over every value of an
answer. A snapshot is a field of its dataset's, called by its full name."""

SNAPSHOT: Final = (
    COMMON
    + _ROWS
    + """
local name = argv["dataset"] .. "@" .. argv["snapshot"]
if not zfs.exists(name) or not ours(argv["dataset"]) then return {} end
return {kind = own(argv["dataset"], "kind"), snapshot = snapshot(name)}
"""
)
"""The ``snapshot`` of a ``dataset`` of ours, packed as by SCAN, and that dataset's kind."""

CHILDREN: Final = """
local root = (...)["argv"]["root"]
local found = {}
for name in zfs.list.children(root) do
  if name ~= root .. "/.tmp" then found[#found + 1] = name end
end
return {names = found}
"""
"""What is directly below ``root``, whosever it is; breaks off without a root."""

LOOK: Final = (
    COMMON
    + """
local name = argv["dataset"]
if not zfs.exists(name) or not ours(name) then return {} end
return {kind = own(name, "kind"), volsize = (zfs.get_prop(name, "volsize"))}
"""
)
"""What a ``dataset`` of ours is; nothing where there is none."""

USAGE: Final = (
    COMMON
    + """
local name = argv["dataset"]
if argv["snapshot"] then name = name .. "@" .. argv["snapshot"] end
if not zfs.exists(name) or not ours(argv["dataset"]) then return {} end
return {
  used = (zfs.get_prop(name, "used")),
  referenced = (zfs.get_prop(name, "referenced")),
  compressratio = (zfs.get_prop(name, "compressratio")),
}
"""
)
"""What a ``dataset`` of ours occupies, or its ``snapshot``; nothing where there is none."""

ROOT: Final = """
local root = (...)["argv"]["root"]
if not zfs.exists(root) then return {missing = true} end
return {
  locked = (zfs.get_prop(root, "keystatus")) == "unavailable",
  available = (zfs.get_prop(root, "available")),
  compressratio = (zfs.get_prop(root, "compressratio")),
}
"""

PROPERTY: Final = """
local argv = (...)["argv"]
return {value = (zfs.get_prop(argv["dataset"], argv["property"]))}
"""
"""One native ``property`` of a ``dataset`` that exists."""

NOBODYS: Final = (
    COMMON
    + """
local found = {}
for _, name in pairs(argv["names"]) do
  if zfs.exists(name) and own(name, "kind") == nil then found[#found + 1] = name end
end
return {names = found}
"""
)
"""Those of ``names`` that exist and carry no property of ours."""

UNPINNED: Final = (
    COMMON
    + """
local function inherits(name, property)
  local _, source = zfs.get_prop(name, property)
  return source ~= name and source ~= "$recvd"
end
local found = {}
for _, name in pairs(argv["names"]) do
  if zfs.exists(name) and own(name, "kind") == "volume"
     and (inherits(name, "volmode") or inherits(name, "snapdev")) then found[#found + 1] = name end
end
return {names = found}
"""
)
"""Of ``names`` the volumes of ours whose ``volmode`` or ``snapdev`` is what they inherit."""

PLACE: Final = (
    COMMON
    + """
local place, volumes = argv["dataset"], argv["volumes"]
if not zfs.exists(place) then return {exists = false} end
local found = {}
for name in zfs.list.children(place) do
  if name ~= volumes then found[#found + 1] = name end
end
if zfs.exists(volumes) then
  for name in zfs.list.children(volumes) do found[#found + 1] = name end
end
return {
  exists = true,
  volmode = zfs.exists(volumes) and zfs.get_prop(volumes, "volmode") or nil,
  kind = own(place, "kind"),
  intents = own(place, "intents"),
  names = found,
  referenced = (zfs.get_prop(place, "referenced")),
}
"""
)
"""Whether ``dataset`` exists and is ours, what it carries (see ``intents``), the bytes it holds
itself, and what is below it and below ``volumes``, which is below it too and whose ``volmode`` is
told where it exists."""

DELETED: Final = (
    COMMON
    + """
local found = {}
for name in zfs.list.children(argv["root"]) do
  if own(name, "state") == "deleted" then found[#found + 1] = name end
end
return {names = found}
"""
)
"""The datasets below ``root`` that are gone for everybody and wait for their last clone."""

FIND: Final = (
    COMMON
    + """
local root, id = argv["root"], argv["snapshot"]
for name in zfs.list.children(root) do
  if zfs.exists(name .. "@" .. id) then return {names = {name}} end
end
return {names = {}}
"""
)
"""The dataset below ``root`` that has ``snapshot``."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program that changes something answered."""

    done: str = ""
    refused: str = ""
    errno: int = 0
    names: tuple[str, ...] = ()


def outcome(answer: Mapping[bytes, Any]) -> Outcome:
    return Outcome(
        done=answer.get(b"done", b"").decode(),
        refused=answer.get(b"refused", b"").decode(),
        errno=answer.get(b"errno", 0),
        names=names(answer),
    )


def names(answer: Mapping[bytes, Any]) -> tuple[str, ...]:
    """A Lua list of names: it arrives as a table with the keys ``1``, ``2`` …"""
    listed: Mapping[bytes, bytes] = answer.get(b"names", {})
    return tuple(listed[key].decode() for key in sorted(listed, key=int))
