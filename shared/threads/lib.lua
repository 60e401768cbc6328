-- What every transition of a thread shares. This text is put before each script by scripts.py.
--
-- Conventions: KEYS are declared by each script's header. Times are Redis's own (TIME), in milliseconds.
-- A script validates before its first write. It answers an array whose first item is a word.

-- 1732150000123 -> "2024-11-21T00:46:40.123Z". Lua has no calendar here; the days are Howard Hinnant's civil_from_days.
local function rfc3339(ms)
  local s = math.floor(ms / 1000)
  local days, rest = math.floor(s / 86400), s % 86400
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day, month = doy - math.floor((153 * mp + 2) / 5) + 1, mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day,
    math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60, ms % 1000)
end

-- Appends events to the thread's stream and tells its subscribers the last id.
-- An id is max(TIME, last id + 1), so that ids rise even when the clock does not (a failover to a slower one).
-- events: {type, step number or '', data as JSON} flattened; run_id and attempt are the same for all of them.
local function append(stream, metadata, thread_id, run_id, attempt, events)
  local ms = now_ms()
  local time = rfc3339(ms)
  local last_ms, last_seq = string.match(redis.call('HGET', metadata, 'last_id') or '0-0', '(%d+)-(%d+)')
  last_ms, last_seq = tonumber(last_ms), tonumber(last_seq)
  for i = 1, #events, 3 do
    if ms > last_ms then last_ms, last_seq = ms, 0 else last_seq = last_seq + 1 end
    local step = events[i + 1] == '' and 'null' or '"' .. run_id .. '.' .. events[i + 1] .. '"'
    local json = '{"type":"' .. events[i] .. '","thread_id":"' .. thread_id .. '","run_id":"' .. run_id
      .. '","step_id":' .. step .. ',"attempt":' .. attempt .. ',"time":"' .. time .. '","data":' .. events[i + 2] .. '}'
    redis.call('XADD', stream, string.format('%.0f-%.0f', last_ms, last_seq), 'e', json, 't', events[i], 'r', run_id)
  end
  local id = string.format('%.0f-%.0f', last_ms, last_seq)
  redis.call('HSET', metadata, 'last_id', id)
  redis.call('SPUBLISH', string.sub(metadata, 1, -10), id) -- the channel is the metadata key without ':metadata'
  return id
end

-- Whether a stream id is after another.
local function later(one, other)
  local ms, n = string.match(one, '(%d+)-(%d+)')
  local other_ms, other_n = string.match(other, '(%d+)-(%d+)')
  if ms ~= other_ms then return tonumber(ms) > tonumber(other_ms) end
  return tonumber(n) > tonumber(other_n)
end

-- The run changed, or its steps or stream did: its number rises, and the archiver is told.
local function mark(run, dirty, run_id)
  redis.call('HSET', dirty, run_id, redis.call('HINCRBY', run, 'seq', 1))
end

-- As `mark`, of a change of the thread that no run's change stands for.
local function mark_thread(metadata, dirty, thread_id)
  redis.call('HSET', dirty, thread_id, redis.call('HINCRBY', metadata, 'seq', 1))
end

-- What to answer to whoever expects another version of a thread or run than it has by now; nil: go on. '' expects none.
local function stale(record, expected)
  local revision = redis.call('HGET', record, 'revision') or '1'
  if expected ~= '' and expected ~= revision then return {'stale', revision} end
  return nil
end

-- Whether a thread or run was deleted. SQL may not know it yet (its mark is there), or who asks may have read SQL before
-- it did (`gone`, ThreadKeys.gone). Who comes later finds that in SQL.
local function was_deleted(dirty, gone, member)
  return redis.call('HGET', dirty, member) == 'deleted' or redis.call('EXISTS', gone) == 1
end

-- What an attempt learns with each write: whether it is to end, and how many messages were put into the run.
local function news(run)
  local record = redis.call('HMGET', run, 'cancel', 'inbox')
  return {'ok', record[1] or '', record[2] or '0'}
end

-- nil when the caller still owns the run and this op is new; otherwise the answer to give.
-- A claim's writes are numbered and come one after another. One that is not above the last is a repetition: by the
-- caller, or by a network that delivers late what was given up and sent again.
local function fence(run, epoch, op)
  local record = redis.call('HMGET', run, 'epoch', 'status', 'op')
  if record[1] ~= epoch then return {'fenced', record[1] or '', record[2] or ''} end
  if tonumber(op) <= tonumber(record[3]) then return news(run) end
  if record[2] ~= 'running' then return {'fenced', record[1], record[2] or ''} end
  return nil
end

-- The keys of the run that a transition ends or moves: KEYS 1-12 of release, expire and cancel.
local function keys_of_run()
  return {run = KEYS[1], metadata = KEYS[2], stream = KEYS[3], queue = KEYS[4], live = KEYS[5], rings = KEYS[6],
    timers = KEYS[7], messages = KEYS[8], journal = KEYS[9], waits = KEYS[10], inbox = KEYS[11], dirty = KEYS[12]}
end

-- The last line of a step's journal entry, which says when it was begun and when it ended. `entry`: what it was until
-- now, if anything; `going_on`: it is at work or waits. Of what was not recorded before its end only that is known.
local function times(entry, going_on, ended)
  local now = string.format('%.0f', now_ms())
  local started = entry and string.match(entry, '\n{"started_at":(%d+)') or going_on and now
  local said = {}
  if started then said[1] = '"started_at":' .. started end
  if ended then said[#said + 1] = '"ended_at":' .. now end
  return '\n{' .. table.concat(said, ',') .. '}'
end

-- A wait is over. What it left in other slots (an event's waiters, the list of approvals) is on the timers' agenda,
-- due at once, until somebody has cleaned it up.
local function close_wait(waits, timers, run_id, key)
  local kind = redis.call('HGET', waits, key)
  redis.call('HDEL', waits, key)
  redis.call('ZREM', timers, 'wake|' .. run_id .. '|' .. key)
  if kind == 'event' or kind == 'human' or kind == 'outcome' then
    redis.call('ZADD', timers, now_ms(), 'clean|' .. run_id .. '|' .. key)
  end
end

-- The run did not get to these: they end with it, and so do its children, by the agenda.
local function cancel_waits(k, run_id)
  for _, key in ipairs(redis.call('HKEYS', k.waits)) do
    local entry = redis.call('HGET', k.journal, key)
    redis.call('HSET', k.journal, key, 'canceled ' .. string.match(entry, '^%S+ (.*)$') .. times(entry, false, true))
    if redis.call('HGET', k.waits, key) == 'child' then
      redis.call('ZADD', k.timers, now_ms(), 'drop|' .. run_id .. '|' .. key)
    end
    close_wait(k.waits, k.timers, run_id, key)
  end
end

-- The conversation as it was before the run; files stay as they are. begin: as of the run's record.
local function roll_back(k, thread_id, run_id, attempt, begin)
  if begin == '0' then redis.call('DEL', k.messages) else redis.call('LTRIM', k.messages, 0, tonumber(begin) - 1) end
  append(k.stream, k.metadata, thread_id, run_id, attempt, {'run.rolled_back', '', '{"messages":' .. begin .. '}'})
end

-- What was put into the run and it did not get to is the next run's to read. Of one that never began, the task is gone
-- as well.
local function leave_messages(k, taken)
  for _, message in ipairs(redis.call('LRANGE', k.inbox, taken, -1)) do redis.call('RPUSH', k.messages, message) end
end

-- A run's end: its last event, and the thread's next run. Returns the next run's id or ''.
-- A child's parent is to be told of it: that is on the timers' agenda until it was.
local function finish(k, thread_id, run_id, status, event, data)
  local attempt, begin, rollback, parent, taken =
    unpack(redis.call('HMGET', k.run, 'epoch', 'begin', 'rollback', 'parent', 'taken'))
  cancel_waits(k, run_id)
  if rollback then
    if begin then roll_back(k, thread_id, run_id, attempt, begin) end
  elseif attempt ~= '0' and status ~= 'succeeded' then
    leave_messages(k, taken or 0)
  end
  local id = append(k.stream, k.metadata, thread_id, run_id, attempt, {event, '', data})
  local following = redis.call('LPOP', k.queue) or ''
  redis.call('HSET', k.run, 'status', status, 'worker', '', 'ended_at', now_ms(), 'last_event', id, 'next', following)
  mark(k.run, k.dirty, run_id)
  redis.call('HDEL', k.live, run_id)
  redis.call('ZREM', k.rings, run_id)
  if parent then redis.call('ZADD', k.timers, now_ms(), 'tell|' .. run_id) end
  if following == '' then
    redis.call('HDEL', k.metadata, 'head')
  else
    redis.call('HSET', k.metadata, 'head', following)
    redis.call('ZADD', k.rings, now_ms() + k.ring_ms, following)
  end
  return following
end

-- An attempt ends: the run has run since its claim.
local function count_time(run)
  local claimed_at = tonumber(redis.call('HGET', run, 'claimed_at'))
  redis.call('HINCRBY', run, 'ran_ms', math.max(0, now_ms() - claimed_at))
end

-- To be claimed by any worker.
local function make_pending(k, run_id)
  redis.call('HSET', k.run, 'status', 'pending', 'worker', '')
  mark(k.run, k.dirty, run_id)
  redis.call('HDEL', k.live, run_id)
  redis.call('ZADD', k.rings, now_ms() + k.ring_ms, run_id)
end

local function requeue(k, thread_id, run_id, reason)
  local attempt = redis.call('HGET', k.run, 'epoch')
  append(k.stream, k.metadata, thread_id, run_id, attempt, {'run.interrupted', '', '{"reason":"' .. reason .. '"}'})
  make_pending(k, run_id)
end

-- A durable intent to end a run. A run that never started ends at once; any other is ended by the worker that has it
-- or, woken if it waits, by the one that claims it next.
-- Answers {ended, the run to ring for or ''}, {canceled, the same} or {requested, the same}.
local function cancel(k, thread_id, run_id, data)
  local status, epoch, following = unpack(redis.call('HMGET', k.run, 'status', 'epoch', 'next'))
  if status == 'succeeded' or status == 'failed' or status == 'canceled' then return {'ended', following or ''} end
  redis.call('HSETNX', k.run, 'cancel', data)
  mark(k.run, k.dirty, run_id)
  if status == 'waiting' then make_pending(k, run_id) end
  if epoch ~= '0' then return {'requested', status == 'running' and '' or run_id} end
  if redis.call('HGET', k.metadata, 'head') == run_id then
    return {'canceled', finish(k, thread_id, run_id, 'canceled', 'run.canceled', data)}
  end
  redis.call('LREM', k.queue, 1, run_id)
  local id = append(k.stream, k.metadata, thread_id, run_id, 0, {'run.canceled', '', data})
  redis.call('HSET', k.run, 'status', 'canceled', 'ended_at', now_ms(), 'last_event', id)
  mark(k.run, k.dirty, run_id)
  if redis.call('HGET', k.run, 'parent') then redis.call('ZADD', k.timers, now_ms(), 'tell|' .. run_id) end
  return {'canceled', ''}
end

-- The first of the blobs, by their markers on the agenda, that can be named no more: it was left unnamed for too long.
local function missing_blob(timers, blobs)
  for _, marker in ipairs(blobs) do
    if not redis.call('ZSCORE', timers, marker) then return marker end
  end
end

-- The transition names the blobs: they stay.
local function name_blobs(timers, blobs)
  for _, marker in ipairs(blobs) do redis.call('ZREM', timers, marker) end
end

-- n flattened items of ARGV from position at: a count, then count * width values. Returns the list and what follows.
local function take(at, width)
  local count, list = tonumber(ARGV[at]), {}
  for i = at + 1, at + count * width do list[#list + 1] = ARGV[i] end
  return list, at + 1 + count * width
end
