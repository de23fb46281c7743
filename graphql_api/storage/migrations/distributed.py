"""What a distributed database has beside the migrations: functions that work on one user, or one token, after another.

Citus locks rows of one shard at a time, and limits rows in a subquery only where it knows the shard. `gateway-tokens
distribute` creates the functions. Statements with `sql_distributed` call them.
"""

FUNCTIONS = """
set local citus.enable_ddl_propagation = off;

create or replace function lock_tokens(of_user text, at_gateway text) returns setof customer_gateway_tokens
language plpgsql as $body$ begin
  return query select * from customer_gateway_tokens
    where user_id = of_user and (at_gateway is null or gateway = at_gateway) order by id for update;
end $body$;

create or replace function history_of_token(token uuid, before integer, size integer)
returns setof customer_gateway_token_events language plpgsql stable as $body$ begin
  return query select * from customer_gateway_token_events
    where token_id = token and (before is null or version < before) order by version desc limit size;
end $body$;

create or replace function change_tokens(changes jsonb, users text[]) returns setof bigint
language plpgsql as $body$
declare
  change record;
  whose text;
  changed record;
begin
  set local citus.propagate_set_commands = 'local';
  do $set$ begin set local lock_timeout = '50ms'; end $set$;  -- Citus tells the workers only of what a block sets
  for change in
    select * from rows from (jsonb_to_recordset(changes) as (
      id uuid, version integer, new_version integer, old_deactivated_at timestamptz, old_verified_at timestamptz,
      old_activated_at timestamptz, description text, is_active boolean, activated_at timestamptz,
      deactivated_at timestamptz, deactivation_reason text, last_verified_at timestamptz, updated_at timestamptz,
      keeps_metadata boolean, metadata jsonb, action text, reason text, actor text, call_id bigint
    )) with ordinality as new(
      id, version, new_version, old_deactivated_at, old_verified_at, old_activated_at, description, is_active,
      activated_at, deactivated_at, deactivation_reason, last_verified_at, updated_at, keeps_metadata, metadata, action,
      reason, actor, call_id, place
    ) order by users[place], id
  loop
    whose := users[change.place];
    update customer_gateway_tokens t set
      description = change.description, is_active = change.is_active, activated_at = change.activated_at,
      deactivated_at = change.deactivated_at, deactivation_reason = change.deactivation_reason,
      last_verified_at = change.last_verified_at, updated_at = change.updated_at, version = change.new_version,
      metadata = case when change.keeps_metadata then t.metadata else change.metadata end
    where t.user_id = whose and t.id = change.id and t.version = change.version
      and t.deactivated_at is not distinct from change.old_deactivated_at
      and t.last_verified_at is not distinct from change.old_verified_at
      and t.activated_at = change.old_activated_at
    returning t.gateway, t.gateway_customer_id into changed;
    if found then
      if change.action is not null then
        insert into customer_gateway_token_events
          (token_id, version, user_id, gateway, gateway_customer_id, is_active, at, action, reason, actor, call_id)
        values (change.id, change.new_version, whose, changed.gateway, changed.gateway_customer_id, change.is_active,
          change.updated_at, change.action, change.reason, change.actor, change.call_id);
      end if;
      return next change.place - 1;
    end if;
  end loop;
end $body$;

-- A token that goes to another user may be gone from one worker before the other one has it: its history does not end.
create or replace function token_with_id(token uuid) returns setof customer_gateway_tokens
language plpgsql as $body$
declare
  last_action text;
begin
  for attempt in 1..50 loop
    return query select * from customer_gateway_tokens where id = token;
    if found then
      return;
    end if;
    select action into last_action from customer_gateway_token_events where token_id = token
      order by version desc limit 1;
    if not found or last_action in ('DELETED', 'ERASED') then
      return;
    end if;
    perform pg_sleep(0.01);
  end loop;
end $body$;

create or replace function token_at(of_user text, at_gateway text) returns setof customer_gateway_tokens
language plpgsql stable as $body$ begin
  return query select * from customer_gateway_tokens where user_id = of_user and gateway = at_gateway;
end $body$;

-- The token of a customer id, or the one that had it if it is `former`; with a user, only theirs.
create or replace function token_of_customer(customer text, at_gateway text, of_user text, former boolean)
returns setof customer_gateway_tokens language plpgsql stable as $body$
declare
  owner text := of_user;
begin
  if owner is null then
    select user_id into owner from gateway_customers where gateway_customer_id = customer and gateway = at_gateway;
  end if;
  return query select * from customer_gateway_tokens
    where user_id = owner and gateway = at_gateway and (former or gateway_customer_id = customer);
  -- Something other than the service may have inserted a token, and its customer id nowhere else.
  if not found and owner is null then
    return query select * from customer_gateway_tokens
      where gateway_customer_id = customer and gateway = at_gateway limit 1;
  end if;
end $body$;

-- As the function of the migrations, but whose an identifier is, is not known to the workers; and it has the rights of
-- its caller, since Citus lets a transaction work as one role only.
create or replace function erase_history(tokens uuid[], erased_user text) returns void
language plpgsql security invoker as $body$
declare
  theirs text[] := array(
    select gateway || ' ' || gateway_customer_id from gateway_customers where user_id = erased_user
  );
begin
  update customer_gateway_token_events set
    user_id = null, gateway_customer_id = '', reason = null,
    actor = case when actor in (erased_user, user_id) then '' else actor end
  where token_id = any(tokens) and (user_id = erased_user or gateway || ' ' || gateway_customer_id = any(theirs));
end $body$;

-- When the first entry after this position was made.
create or replace function feed_next_at(place bigint, until bigint) returns timestamptz language plpgsql as $body$ begin
  return (
    select at from customer_gateway_token_events where position > 0 and position > place and position <= until
    order by position limit 1
  );
end $body$;

create or replace function feed_newest() returns bigint language plpgsql as $body$ begin
  return (select coalesce(max(position), 0) from customer_gateway_token_events where position > 0);
end $body$;

-- The time, in microseconds, since which every transaction that writes history began; those that began before it are
-- seen on all nodes. A writer locks the table on the coordinator until its last node has committed. If a worker died
-- before that, what it prepared has no writer any more: until Citus commits it, nothing is settled.
create or replace function feed_settled_since() returns bigint language plpgsql as $body$
declare
  writers integer[];
  prepared text;
  oldest timestamptz;
  are_seen boolean;
begin
  writers := array(select pid from pg_locks
    where relation = 'customer_gateway_token_events'::regclass and mode = 'RowExclusiveLock');
  select bool_and(success), string_agg(nullif(result, ''), ' ') into are_seen, prepared
  from run_command_on_workers($command$
    select string_agg(split_part(gid, '_', 3), ' ') from pg_prepared_xacts
    where database = current_database() and starts_with(gid, 'citus_0_')
  $command$);
  select coalesce(min(coalesce(xact_start, '-infinity')), 'infinity'), writers || coalesce(array_agg(pid), '{}')
  into oldest, writers
  from pg_locks left join pg_stat_activity using (pid)
  where relation = 'customer_gateway_token_events'::regclass and mode = 'RowExclusiveLock';
  if not are_seen or exists (
    select from regexp_split_to_table(prepared, ' ') as pid where pid::integer <> all(writers)
  ) then
    return 0;
  end if;
  return case oldest when 'infinity' then 9e18 when '-infinity' then 0 else extract(epoch from oldest) * 1000000 end;
end $body$;
"""
