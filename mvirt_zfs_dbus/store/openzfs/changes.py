"""The channel programs that change something (zfs-program(8)).

Each is one transaction group under a lock on the pool's configuration: neither a power cut nor
another administrator gets between its steps. A signal to its caller does, as SIGKILL: ZFS breaks
the program off then, where it finds that out, once in a hundred instructions of a coroutine
(``zcp_lua_counthook``). So steps that belong together are taken ``whole`` where a beginning of them
is not harmless, and a destroy that was broken off all the same is ended later. API functions return
an errno and go on, so every program asks ``zfs.check`` about all its steps before the first one.

They answer ``{done = …}``, or with nothing changed ``{refused = …, names = {…}}`` or
``{errno = …}``. Names and values come in as arguments and are never written into the text.
"""

from __future__ import annotations

from typing import Final

from .programs import COMMON
from .properties import PREFIX
from .whole import WHOLE

_SET_ALL: Final = (
    WHOLE
    + """
local function set_all(dataset, values)
  local keys, failed = {}, 0
  for key, value in pairs(values) do
    failed = zfs.check.set_prop(dataset, key, value)
    if failed ~= 0 then return {errno = failed} end
    keys[#keys + 1] = key
  end
  whole(keys, function(key)
    if failed == 0 then failed = zfs.sync.set_prop(dataset, key, values[key]) end
  end)
  if failed ~= 0 then return {errno = failed} end
  return {done = "set"}
end
"""
)

SET: Final = (
    COMMON
    + _SET_ALL
    + """
local dataset = argv["dataset"]
if not zfs.exists(dataset) or not ours(dataset) then return {refused = "missing"} end
return set_all(dataset, argv["set"])
"""
)
"""``set``: user properties by their full names, for a ``dataset`` of ours."""

INTEND: Final = (
    COMMON
    + _SET_ALL
    + """
local place = argv["dataset"]
if not zfs.exists(place) or own(place, "kind") ~= "spool" then return {refused = "missing"} end
return set_all(place, argv["set"])
"""
)
"""The same for the ``dataset`` where what is unfinished stands."""

SETTLE: Final = (
    COMMON
    + """
local empty, left = tonumber(argv["empty"]), {}
local function holds(name)
  if not readable(name) or zfs.get_prop(name, "logicalused") > empty then return true end
  for _ in zfs.list.snapshots(name) do return true end
  return false
end
for _, name in pairs(argv["names"]) do
  if zfs.exists(name) and own(name, "kind") == nil and own(name, "created") == nil
     and not holds(name) and zfs.sync.destroy(name) ~= 0 then left[#left + 1] = name end
end
return {done = "settled", names = left}
"""
)
"""Destroys of ``names`` the datasets that do not carry our properties, have at most ``empty`` bytes
(``logicalused``, as text) and no snapshot; answers those of them that it could not destroy."""

# Whether a zvol is open has no function of its own. A rollback is refused when it is, and asking
# for one needs a snapshot, which is the very case in which a destroy cannot be asked.
_CHECKS: Final = """
local function check_closed(dataset)
  local failed = zfs.check.rollback(dataset)
  if failed == EBUSY then return {refused = "busy"} end
  if failed == EAGAIN then return {refused = "again"} end
end

local function check_destroyable(snapshots, defer)
  for _, name in ipairs(snapshots) do
    local failed = zfs.check.destroy({[1] = name, defer = defer})
    if failed == EBUSY then return {refused = "held", names = {name}} end
    if failed ~= 0 then return {errno = failed, names = {name}} end
  end
end

local function snapshots_of(dataset)
  local names, moment = {}, {}
  for name in zfs.list.snapshots(dataset) do
    names[#names + 1] = name
    moment[name] = (zfs.get_prop(name, "createtxg"))
  end
  table.sort(names, function(one, other) return moment[one] < moment[other] end)
  return names, moment
end

-- Splits snapshots into ours and others', without those that go with their last clone, and adds the
-- clones of all.
local function sort(names)
  local found = {visible = {}, foreign = {}, clones = {}}
  for _, name in ipairs(names) do
    local kind = own(name, "kind")
    local list = found.visible
    if kind ~= "snapshot" and kind ~= "image" then list = found.foreign end
    if not deferred(name) then list[#list + 1] = name end
    for clone in zfs.list.clones(name) do found.clones[#found.clones + 1] = clone end
  end
  return found
end
"""

DESTROY: Final = (
    COMMON
    + _CHECKS
    + WHOLE
    + f"""
local dataset, defer = argv["dataset"], argv["defer"]
if not zfs.exists(dataset) or not ours(dataset) or own(dataset, "kind") ~= argv["kind"] then
  return {{refused = "missing"}}
end
if not readable(dataset) then return {{errno = EIO}} end
local names = snapshots_of(dataset)
if #names == 0 then
  local failed = zfs.sync.destroy(dataset)
  if failed == EBUSY then return {{refused = "busy"}} end
  if failed ~= 0 then return {{errno = failed}} end
  return {{done = "destroyed"}}
end

local found = sort(names)
if #found.foreign > 0 then return {{refused = "foreign", names = found.foreign}} end
if not argv["snapshots"] then return {{refused = "snapshots", names = names}} end
if #found.clones > 0 and not defer then return {{refused = "clones", names = found.clones}} end
local refused = check_closed(dataset) or check_destroyable(names, defer)
if refused then return refused end

-- First of all, so that it is gone for everybody should this be broken off. A full pool has no
-- space for a property, and still has to let go of what is destroyed whole.
local failed = zfs.sync.set_prop(dataset, "{PREFIX}state", "deleted")
if failed ~= 0 and #found.clones > 0 then return {{errno = failed}} end
local gone = false
assert(resume(create(function()
  whole(names, function(name) zfs.sync.destroy({{[1] = name, defer = defer}}) end)
  if #found.clones == 0 then gone = zfs.sync.destroy(dataset) == 0 end
end)))
if gone then return {{done = "destroyed"}} end
if failed ~= 0 then failed = zfs.sync.set_prop(dataset, "{PREFIX}state", "deleted") end
if failed ~= 0 then return {{errno = failed}} end
return {{done = "deferred"}}
"""
)
"""``dataset`` of ``kind``; its snapshots too with ``snapshots``; ``defer`` what has clones."""

DESTROY_SNAPSHOT: Final = (
    COMMON
    + _CHECKS
    + """
local name, defer = argv["snapshot"], argv["defer"]
if not zfs.exists(name) or own(name, "kind") ~= "snapshot" or deferred(name) then
  return {refused = "missing"}
end
local found = sort({name})
if #found.clones > 0 and not defer then return {refused = "clones", names = found.clones} end
local refused = check_destroyable({name}, defer)
if refused then return refused end
local failed = zfs.sync.destroy({[1] = name, defer = defer})
if failed ~= 0 then return {errno = failed} end
return {done = "destroyed"}
"""
)

ROLLBACK: Final = (
    COMMON
    + _CHECKS
    + WHOLE
    + """
local dataset, target = argv["dataset"], argv["snapshot"]
if not zfs.exists(target) or not ours(dataset) or own(target, "kind") ~= "snapshot"
   or deferred(target) then
  return {refused = "missing"}
end
if not readable(dataset) then return {errno = EIO} end
local names = {}
local all, moment = snapshots_of(dataset)
for _, name in ipairs(all) do
  if moment[name] > moment[target] then names[#names + 1] = name end
end
local newer = sort(names)
if #newer.foreign > 0 then return {refused = "foreign", names = newer.foreign} end
-- A bookmark has no properties here: one made since the caller looked counts as newer.
local marks = {}
for mark in zfs.list.bookmarks(dataset) do
  local made = tonumber(argv["bookmarks"][mark])
  if made == nil or made > moment[target] then marks[#marks + 1] = mark end
end
if #marks > 0 then return {refused = "bookmarks", names = marks} end
if #newer.visible > 0 and not argv["destroy_newer"] then
  return {refused = "newer", names = newer.visible}
end
if #newer.clones > 0 then return {refused = "clones", names = newer.clones} end
local refused = check_closed(dataset) or check_destroyable(names, false)
if refused then return refused end
-- What keeps the volume from its latest snapshot, as a reservation that does not fit, keeps it from
-- an earlier one too.
local failed = zfs.check.rollback(dataset)
if failed ~= 0 then return {errno = failed} end
assert(resume(create(function()
  whole(names, function(name)
    if failed == 0 then failed = zfs.sync.destroy(name) end
  end)
  if failed == 0 then failed = zfs.sync.rollback(dataset) end
end)))
if failed ~= 0 then return {errno = failed} end
return {done = "rolled back"}
"""
)
"""``dataset`` to ``snapshot``, without the newer ones if ``destroy_newer``; ``bookmarks`` are those
of the dataset, by their full names, with the transaction groups of their snapshots as text."""

COLLECT: Final = (
    COMMON
    + _CHECKS
    + """
local function finish(name)
  for _, left in ipairs(sort(snapshots_of(name)).visible) do
    zfs.sync.destroy({[1] = left, defer = true})
  end
end
local waiting, gone = {}, {}
for _, name in pairs(argv["names"]) do
  if zfs.exists(name) and own(name, "state") == "deleted" then
    waiting[name] = true
    if argv["finish"] and readable(name) then finish(name) end
  else gone[#gone + 1] = name end
end
-- The end of a clone takes its deferred origin along, which may free the next one.
local progress = true
while progress do
  progress = false
  for name in pairs(waiting) do
    if zfs.sync.destroy(name) == 0 then
      waiting[name] = nil
      gone[#gone + 1] = name
      progress = true
      break
    end
  end
end
return {done = "collected", names = gone}
"""
)
"""Of the deleted datasets ``names``, those that nothing holds any more, and to ``finish`` a destroy
that was broken off the snapshots that it left; answers what is gone."""

DESTROY_STAGED: Final = (
    COMMON
    + """
local name = argv["dataset"]
if not zfs.exists(name) then return {done = "destroyed"} end
for snapshot in zfs.list.snapshots(name) do
  local failed = zfs.sync.destroy(snapshot)
  if failed ~= 0 then return {errno = failed} end
end
local failed = zfs.sync.destroy(name)
if failed == EBUSY then return {refused = "busy"} end
if failed ~= 0 then return {errno = failed} end
return {done = "destroyed"}
"""
)
"""A dataset that was never published, with whatever snapshots it has."""
