# On a hot standby readers work and writers fail with PostgreSQL's own read-only error; after promotion
# everything does.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', "shared_preload_libraries = 'session_store'\nsession_store.naptime = '50ms'");
$primary->start;
$primary->safe_psql('postgres', <<'SQL');
CREATE ROLE app;
CREATE EXTENSION session_store;
SELECT session_store.create_store(), session_store.create_store('raw', 'bytea'), session_store.create_store('empty'), session_store.create_store('mirrored'), session_store.create_store('parts', partition_interval => '1 day');
UPDATE session_store.stores SET touch_granularity = '1 hour', logout_guard = '1 hour';
SELECT session_store.upsert('s' || i, jsonb_build_object('n', i), user_id => 'anna') FROM generate_series(1, 5) i;
SELECT session_store.touch('s1', expire => clock_timestamp() + interval '1 day 50 minutes'), session_store.upsert('over', '{}', expire => '2020-01-01'), session_store.expire('s5');
SELECT session_store.upsert('big', jsonb_build_object('pad', repeat(md5('x'), 100000)));
SELECT session_store.upsert_bytes('s', '\x00ff', store => 'raw', user_id => 'anna');
SELECT session_store.upsert('p' || i, jsonb_build_object('n', i), ttl => i * interval '9 hours', user_id => 'anna', store => 'parts') FROM generate_series(1, 9) i;
SELECT session_store.upsert('p10', '{"n": 10}', expire => 'infinity', store => 'parts'), session_store.expire('p9', 'parts');
CREATE SERVER redis FOREIGN DATA WRAPPER session_store_redis OPTIONS (host '127.0.0.1', port '1');
UPDATE session_store.stores SET redis_server = 'redis' WHERE store = 'mirrored';
SELECT session_store.set_phase('mirrored', 'dual_redis_primary');
SQL

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

sub is_read { my ($query, $expected, $what) = @_; is($standby->safe_psql('postgres', $query), $expected, $what) }

is_read(q{SELECT session_store.get('s1'), session_store.get('over'), session_store.get('s5'), session_store.get('nobody')}, '{"n": 1}|||', 'get');
is_read(q{SELECT length(session_store.get('big') ->> 'pad')}, 3200000, 'get of a large payload');
is_read(q{SELECT session_store.get_bytes('s', 'raw'), convert_from(session_store.get_bytes('s2'), 'UTF8')}, '\x00ff|{"n": 2}', 'get_bytes');
is_read(q{SELECT sess, version > 1e15, expire > now() FROM session_store.get_versioned('s3')}, '{"n": 3}|t|t', 'get_versioned');
is_read(q{SELECT string_agg(sid, ' ' ORDER BY sid) FROM session_store.get_many(ARRAY['s3', 's1', 'over', 's5'])}, 's1 s3', 'get_many');
is_read(q{SELECT sess FROM session_store.get_many_bytes(ARRAY['s'], 'raw')}, '\x00ff', 'get_many_bytes');
is_read(q{SELECT string_agg(sid, ' ' ORDER BY sid) FROM session_store.user_sessions('anna')}, 's1 s2 s3 s4', 'user_sessions');
is_read(q{SELECT count(*) FROM session_store.user_sessions_bytes('anna', 'raw')}, 1, 'user_sessions_bytes');
is_read(q{SELECT phase FROM session_store.routing()}, 'pg_only', 'routing');
is_read(q{SELECT store, postgres_sessions FROM session_store.status ORDER BY store}, "empty|0\nmirrored|0\nparts|9\nraw|1\nsessions|5", 'status');
is_read(q{SELECT mirror FROM session_store.status WHERE store = 'mirrored'}, 'not running: this server is a standby; the mirror runs on its primary',
	'which says where the mirror runs');
is_read(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'session_store%'}, 0, 'no worker of ours');

# A partitioned store is read alike.
is_read(q{SELECT session_store.get('p1', 'parts'), session_store.get('p8', 'parts'), session_store.get('p9', 'parts'), session_store.get('p10', 'parts'), convert_from(session_store.get_bytes('p3', 'parts'), 'UTF8')},
	'{"n": 1}|{"n": 8}||{"n": 10}|{"n": 3}', 'get in every partition');
is_read(q{SELECT string_agg(sid, ' ' ORDER BY sid) FROM session_store.get_many(ARRAY['p2', 'p9', 'p7', 'p10'], 'parts')}, 'p10 p2 p7', 'get_many of partitions');
is_read(q{SELECT count(*) FROM session_store.user_sessions('anna', 'parts')}, 8, 'user_sessions of partitions');
is_read(q{SELECT count(*) > 2, bool_or(range_from IS NULL) FROM session_store.partitions('parts')}, 't|t', 'partitions');

# Within touch_granularity a touch has nothing to write.
is_read(q{SELECT session_store.touch('s1'), session_store.get_and_touch('s1')}, 't|{"n": 1}', 'a touch with nothing to write');
is_read(q{SELECT session_store.touch('nobody'), session_store.get_and_touch('over')}, 'f|', 'a touch of what is not live');

for my $statement (
	q{SELECT session_store.upsert('s1', '{}')}, q{SELECT session_store.upsert('new', '{}', expected_version => 0)},
	q{SELECT session_store.upsert_bytes('s', '', store => 'raw')}, q{SELECT session_store.touch('s1', ttl => '2 days')},
	q{SELECT session_store.get_and_touch('s1', ttl => '2 days')}, q{SELECT session_store.get_bytes_and_touch('s', '2 days', store => 'raw')},
	q{SELECT session_store.merge('s1', '{}')}, q{SELECT session_store.expire('s1')}, q{SELECT session_store.expire('nobody')},
	q{SELECT session_store.destroy('s1')}, q{SELECT session_store.expire_user('anna')}, q{SELECT session_store.create_store('new')},
	q{SELECT session_store.drop_store('sessions')}, q{SELECT session_store.drop_store('sessions', false)},
	q{SELECT session_store.set_phase('empty', 'redis_only')}, q{UPDATE session_store.stores SET default_ttl = '1 s'},
	q{SELECT session_store.upsert('p1', '{}', store => 'parts')}, q{SELECT session_store.touch('p1', ttl => '20 days', store => 'parts')},
	q{SELECT session_store.expire('p1', 'parts')}, q{CALL session_store.maintain_partitions('parts')}, q{CALL session_store.repartition('parts', NULL)},
	q{CALL session_store.cleanup()}, q{SELECT session_store.grant_app('app')}, q{DELETE FROM sessions WHERE sid = 's1'})
{
	my $error;
	$standby->psql('postgres', "\\set VERBOSITY verbose\n$statement", stderr => \$error);
	like($error, qr/ERROR:  25006: cannot execute/, "refused: $statement");
}

# A connection that stays learns what changes on the primary.
my $session = $standby->background_psql('postgres');
my $both = q{SELECT session_store.get('s1'), phase FROM session_store.routing('empty')};
is($session->query_safe($both), '{"n": 1}|pg_only', 'an open connection');
$primary->safe_psql('postgres', q{
	CREATE SCHEMA shop;
	ALTER TABLE sessions RENAME TO renamed;
	ALTER TABLE renamed SET SCHEMA shop;
	SELECT session_store.set_phase('empty', 'redis_only'), session_store.merge('s1', '{"n": 2}')});
$primary->wait_for_catchup($standby);
is($session->query_safe($both), '{"n": 2}|redis_only', 'sees a table renamed, a phase and a payload changed');

my $version = $primary->safe_psql('postgres', q{SELECT version FROM session_store.get_versioned('s1')});
$primary->stop('immediate');
$standby->promote;
is($session->query_safe(q{SELECT session_store.merge('s1', '{"m": 1}')}), '{"m": 1, "n": 2}', 'after promotion the same connection writes');
$session->quit;
is_read(qq{SELECT session_store.upsert('s1', '{"n": 3}') > $version, session_store.upsert('new', '{}') > $version, session_store.expire('s2')}, 't|t|t', 'so do others');
is_read(q{SELECT session_store.upsert('s2', '{}') IS NULL, session_store.upsert('s5', '{}') IS NULL}, 't|t', 'a logout holds, also one from before');
is_read(q{SELECT session_store.upsert('p1', '{"n": 11}', ttl => '5 days', store => 'parts') > 1, session_store.upsert('p9', '{}', store => 'parts') IS NULL}, 't|t', 'and a partitioned store is written');
is_read(q{SELECT session_store.get('p1', 'parts')}, '{"n": 11}', 'and moves a session');
is($standby->psql('postgres', q{CALL session_store.maintain_partitions('parts')}), 0, 'its partitions are maintained');
is_read(q{SELECT session_store.create_store('another')}, 'another', 'stores can be made');
is($standby->psql('postgres', 'CALL session_store.cleanup()'), 0, 'cleanup runs');
is_read(q{SELECT count(*) FROM shop.renamed WHERE sid = 'over'}, 0, 'and removes what is over');
ok($standby->poll_query_until('postgres', q{SELECT last_error LIKE '%Connection refused%' FROM session_store.status WHERE store = 'mirrored'}),
	'and the mirror goes on here');

$standby->stop;
done_testing();
