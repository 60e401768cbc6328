-- submit: a new run enters its thread. Idempotent by run id.
-- KEYS 1 metadata, 2 run, 3 runs, 4 queue, 5 stream, 6 live, 7 rings, 8 timers, 9 messages, 10 journal,
--      11 steps, 12 dirty, 13 journal and 14 steps that were copied for it (10 and 11 again where none were),
--      then of each unfinished run that the caller knows of, the head first: run, journal, waits,
--      inbox;
--      the last one: gone
-- ARGV 1 thread id, 2 run id, 3 what to do when the thread is busy (enqueue | reject | interrupt | rollback),
--      4 ring after (ms), 5 data of run.queued (JSON), 6 data of run.canceled of those that it interrupts,
--      7 when the run's id was made (ms), or '' from a caller who knows that SQL has no such run,
--      then counted lists: those runs' ids, the record's fields (name, value), markers of the blobs that it names;
--      how many steps were copied for it
-- Answers {accepted, created_at, status, the run to ring for or '', 1 while SQL is yet to have it as it is},
--      {not_found}, {deleted}: the run was, {evicted}: SQL may have the run, {archived}, {busy, head run},
--      {missing}: a blob or the copied steps were left for too long, and must be written again, or
--      {changed}: the unfinished runs are others than the caller knows of (interrupt and rollback), who reads them again.
local thread_id, run_id, on_busy = ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('HMGET', KEYS[2], 'created_at', 'status')
if known[1] then
  local mine = known[2] == 'pending' and redis.call('HGET', KEYS[1], 'head') == run_id
  return {'accepted', known[1], known[2], mine and run_id or '', redis.call('HEXISTS', KEYS[12], run_id)}
end
local status, head, evicted_at = unpack(redis.call('HMGET', KEYS[1], 'status', 'head', 'evicted_at'))
if not status then return {'not_found'} end
if was_deleted(KEYS[12], KEYS[#KEYS], run_id) then return {'deleted'} end
if evicted_at and ARGV[7] ~= '' and tonumber(ARGV[7]) <= tonumber(evicted_at) then return {'evicted'} end
if status ~= 'active' then return {'archived'} end
if head and on_busy == 'reject' then return {'busy', head} end

local interrupted, fields, blobs, at
interrupted, at = take(8, 1)
fields, at = take(at, 2)
blobs, at = take(at, 1)
local copied = tonumber(ARGV[at])
local whole = copied == 0 or redis.call('HLEN', KEYS[13]) == copied and redis.call('ZCARD', KEYS[14]) == copied
if not whole or missing_blob(KEYS[8], blobs) then return {'missing'} end
local ring = ''
if head and on_busy ~= 'enqueue' then
  local there = redis.call('LRANGE', KEYS[4], 0, -1)
  table.insert(there, 1, head)
  if table.concat(there, ' ') ~= table.concat(interrupted, ' ') then return {'changed'} end
  -- The last ones first, so that none of them becomes the head.
  for i = #interrupted, 1, -1 do
    local k = {run = KEYS[11 + 4 * i], metadata = KEYS[1], stream = KEYS[5], queue = KEYS[4], live = KEYS[6],
      rings = KEYS[7], timers = KEYS[8], messages = KEYS[9], journal = KEYS[12 + 4 * i], waits = KEYS[13 + 4 * i],
      inbox = KEYS[14 + 4 * i], dirty = KEYS[12], ring_ms = tonumber(ARGV[4])}
    if on_busy == 'rollback' then redis.call('HSET', k.run, 'rollback', 1) end
    ring = cancel(k, thread_id, interrupted[i], ARGV[6])[2]
  end
  head = redis.call('HGET', KEYS[1], 'head')
end

local now = now_ms()
redis.call('HSET', KEYS[2], 'status', 'pending', 'epoch', 0, 'seq', 0, 'stalls', 0, 'step', 1, 'created_at', now,
  unpack(fields))
local project = redis.call('HGET', KEYS[1], 'project')
if project then redis.call('HSET', KEYS[2], 'project', project) end
if copied > 0 then
  for i = 10, 11 do
    redis.call('RENAME', KEYS[i + 3], KEYS[i])
    redis.call('PERSIST', KEYS[i])
  end
end
name_blobs(KEYS[8], blobs)
redis.call('ZADD', KEYS[3], now, run_id)
local id = append(KEYS[5], KEYS[1], thread_id, run_id, 0, {'run.queued', '', ARGV[5]})
redis.call('HSET', KEYS[2], 'first_event', id)
mark(KEYS[2], KEYS[12], run_id)
if head then
  redis.call('RPUSH', KEYS[4], run_id)
  return {'accepted', now, 'pending', ring, 1}
end
redis.call('HSET', KEYS[1], 'head', run_id)
redis.call('ZADD', KEYS[7], now + tonumber(ARGV[4]), run_id)
return {'accepted', now, 'pending', run_id, 1}
