-- claim: a worker takes a pending run and gets its fencing token, the epoch. Only the thread's head run can be taken.
-- KEYS 1 metadata, 2 run, 3 journal, 4 messages, 5 stream, 6 live, 7 rings, 8 steps, 9 dirty
-- ARGV 1 thread id, 2 run id, 3 worker, 4 the call's name: repeated, it gets the same answer while its claim holds,
--      what the worker knows of the run: 5 the highest number of its steps, or '', 6 how many messages,
--      7 'any' when it takes every run,
--      then counted lists: the steps that were not finished, the durable functions that the worker has (name,
--      name@version)
-- Answers {claimed, record, journal, messages, metadata} (hashes flattened; of journal and messages what the worker
--      does not know), {refused, status or ''}, or {lacking, the function}: the worker has not what the run needs.
local thread_id, run_id, worker, call = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local unfinished, functions, at
unfinished, at = take(8, 1)
functions = take(at, 1)
local status, epoch, known, step = unpack(redis.call('HMGET', KEYS[2], 'status', 'epoch', 'claim', 'step'))

-- The function that the run needs and the worker has not; nil when it can go on with the run.
local function lacking()
  local kind, name, version = unpack(redis.call('HMGET', KEYS[2], 'runnable_type', 'runnable_id', 'version'))
  if kind ~= 'function' or ARGV[7] == 'any' then return nil end
  local needed = version and name .. '@' .. version or name
  for _, had in ipairs(functions) do
    if had == needed then return nil end
  end
  return needed
end

if known ~= call or status ~= 'running' then
  if known == call or status ~= 'pending' or redis.call('HGET', KEYS[1], 'head') ~= run_id then return {'refused', status or ''} end
  local needed = lacking()
  if needed then return {'lacking', needed} end
  epoch = tonumber(epoch) + 1
  redis.call('HSET', KEYS[2], 'status', 'running', 'epoch', epoch, 'worker', worker, 'claim', call,
    'op', 0, 'claimed_at', now_ms())
  redis.call('HSETNX', KEYS[2], 'started_at', now_ms())
  mark(KEYS[2], KEYS[9], run_id)
  redis.call('HSET', KEYS[6], run_id, worker)
  redis.call('ZREM', KEYS[7], run_id)
  local event, data = 'run.started', '{}'
  if epoch > 1 then event, data = 'run.resumed', '{"from_step":"' .. run_id .. '.' .. step .. '"}' end
  append(KEYS[5], KEYS[1], thread_id, run_id, epoch, {event, '', data})
end
-- A finished step never changes, and a new one has a higher number than all before it.
local journal
if ARGV[5] == '' then
  journal = redis.call('HGETALL', KEYS[3])
else
  journal = {}
  local function give(keys)
    for _, key in ipairs(keys) do
      journal[#journal + 1] = key
      journal[#journal + 1] = redis.call('HGET', KEYS[3], key)
    end
  end
  give(unfinished)
  give(redis.call('ZRANGEBYSCORE', KEYS[8], '(' .. ARGV[5], '+inf'))
end
return {'claimed', redis.call('HGETALL', KEYS[2]), journal, redis.call('LRANGE', KEYS[4], ARGV[6], -1),
  redis.call('HGETALL', KEYS[1])}
