# A partitioned store is mirrored as another is: sessions move between partitions, and the layout changes under it.
use strict;
use warnings;
use FindBin;
use IPC::Run;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use RedisServer;
use Test::More;
use Time::HiRes qw(usleep);

my $redis = RedisServer->new;
my $node = start_mirrored_cluster('partitioned');
sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql) }

# From hours to weeks, and for ever.
sub life { my ($n) = @_; return $n % 10 ? ('EX', 3600 * (1 + $n)) : () }

$redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), life($_)] } 1 .. 300);
create_mirrored_store($node, $redis, interval => '1 day');
wait_equal($node, $redis, 'equal after the initial copy');
cmp_ok(sql('SELECT count(DISTINCT tableoid) FROM sessions'), '>', 5, 'in several partitions');

# What Redis does.
$redis->commands(
	(map { ['EXPIRE', "sess:$_", 3600 * 24 * 9 + $_] } 1 .. 20),
	(map { ['PERSIST', "sess:$_"] } 21 .. 40),
	(map { ['SET', "sess:$_", '{"n": "changed"}', 'EX', 1000 + 3600 * $_] } 41 .. 60),
	(map { ['DEL', "sess:$_"] } 61 .. 80),
	(map { ['SET', "sess:new$_", '{}', life($_)] } 1 .. 20));
wait_equal($node, $redis, 'equal after changes in Redis, most of which move a session');

# What PostgreSQL does, by functions and by statements.
sql(<<'SQL');
SELECT session_store.upsert(i::text, '{"from": "here"}', ttl => i * interval '1 hour') FROM generate_series(81, 100) i;
SELECT session_store.upsert('here' || i, '{}', ttl => i * interval '9 hours') FROM generate_series(1, 20) i;
SELECT session_store.touch(i::text, ttl => '20 days') FROM generate_series(101, 120) i;
SELECT session_store.expire(i::text) FROM generate_series(121, 140) i;
UPDATE sessions SET expire = 'infinity' WHERE sid IN (SELECT i::text FROM generate_series(141, 160) i);
UPDATE sessions SET sess = '{"by": "statement"}', expire = expire - interval '30 hours' WHERE sid IN (SELECT i::text FROM generate_series(201, 220) i);
DELETE FROM sessions WHERE sid IN (SELECT i::text FROM generate_series(161, 180) i);
SQL
is(sql("SELECT session_store.wait_for_mirror('sessions')"), 't', 'all is copied');
wait_equal($node, $redis, 'equal after changes in PostgreSQL');
is($redis->command('EXISTS', map { "sess:$_" } 121 .. 140, 161 .. 180), 0, 'a logout ends the session in Redis');
is(sql('SELECT count(*) - count(DISTINCT sid) FROM sessions'), 0, 'no session has two rows');

# Both at once, on the same sessions: the owner wins, wherever each side has moved them.
for my $phase ('dual_redis_primary', 'dual_pg_primary')
{
	sql("SELECT session_store.set_phase('sessions', '$phase', force => true)");
	ok(wait_in_sync($node), "in sync in $phase");
	my $mirror = mirror_pid($node);
	stop_process($node, $mirror);
	$redis->commands(map { ['SET', "sess:$_", '{"n": "redis"}', 'EX', 3600 * 24 * 3] } 1 .. 20);
	sql(q{SELECT session_store.upsert(i::text, '{"n": "postgres"}', ttl => '6 days') FROM generate_series(1, 20) i});
	kill 'CONT', $mirror;
	is(sql("SELECT session_store.wait_for_mirror('sessions')"), 't', 'the conflict is decided');
	wait_equal($node, $redis, "equal after conflicts in $phase");
	my ($winner, $days) = $phase eq 'dual_pg_primary' ? ('postgres', 6) : ('redis', 3);
	is(sql("SELECT count(*) FROM sessions WHERE sess ->> 'n' = '$winner' AND expire BETWEEN now() + '$days days' - interval '1 hour' AND now() + '$days days'"),
		20, 'as the owner says');
}

# A row that somebody holds does not hold up others.
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT FROM sessions WHERE sid = '200' FOR UPDATE");
$redis->commands(map { ['SET', "sess:$_", '{"n": "beside"}', 'EX', 3600 * 24 * 5] } 195 .. 205);
ok($node->poll_query_until('postgres', q{SELECT count(*) = 10 FROM sessions WHERE sess ->> 'n' = 'beside'}), 'others are copied beside a row lock');
$holder->query_safe('COMMIT');
$holder->quit;
wait_equal($node, $redis, 'equal once it is free');

# The layout changes while Redis writes.
my $round = 0;
for my $interval ("'6 hours'", 'NULL', "'1 day'")
{
	$round++;
	my $call = IPC::Run::start(
		[ 'psql', '-X', '-h', $node->host, '-p', $node->port, '-c', "CALL session_store.repartition('sessions', $interval)", 'postgres' ],
		'>', \my $out, '2>', \my $err);
	while ($call->pumpable)
	{
		$redis->commands(map { ['SET', 'sess:' . (1 + int rand 300), qq({"round": $round}), 'EX', 3600 * (1 + int rand 200)] } 1 .. 20);
		$call->pump_nb;
		usleep(20_000);    # a thousand sessions a second
	}
	ok($call->finish, "repartition to $interval under the mirror") or diag($err);
	wait_equal($node, $redis, "equal with $interval");
	is(sql('SELECT count(*) - count(DISTINCT sid) FROM sessions'), 0, 'no session has two rows');
}
is(sql("SELECT count(*) FROM session_store.verify('sessions')"), 0, 'verify finds no difference');

# An empty Redis: filled again where PostgreSQL owns the sessions, at the operator's word where Redis does.
$redis->command('FLUSHALL');
wait_equal($node, $redis, 'Redis is filled by PostgreSQL');
sql("SELECT session_store.set_phase('sessions', 'dual_redis_primary', force => true)");
ok(wait_in_sync($node), 'in sync with Redis as the owner');
$redis->command('FLUSHALL');
ok(wait_for_status($node, '^paused: '), 'a flush empties nothing');
sql("SELECT session_store.resync('sessions', refill_redis => true)");
wait_equal($node, $redis, 'Redis is filled again');

$node->stop;
done_testing();
