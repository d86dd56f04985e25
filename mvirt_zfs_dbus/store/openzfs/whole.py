"""Steps of a channel program that a signal to its caller does not part.

ZFS looks for signals once in a hundred instructions of a coroutine (``zcp_lua_counthook``), and
breaks the program off when there is one.
"""

from __future__ import annotations

from typing import Final

WHOLE: Final = """
-- Instructions are counted anew in a new coroutine: what takes less than a hundred is done whole,
-- and so is what starts others for the rest.
local create, resume = coroutine.create, coroutine.resume
local function each(list, work, first, last)
  if last - first < 4 then
    for number = first, last do work(list[number]) end
    return
  end
  local part = (last - first) / 4 + 1
  for start = first, last, part do
    local stop = start + part - 1
    if stop > last then stop = last end
    assert(resume(create(each), list, work, start, stop))
  end
end
local function whole(list, work) assert(resume(create(each), list, work, 1, #list)) end
"""
"""``whole(list, work)`` calls ``work`` with each of a list, and ``resume(create(…))`` holds steps
beside it together, as long as each call and each such piece is a few instructions."""
