# Each side accepts writes and each is copied to the other; in a conflict the owner wins.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;
use Time::HiRes qw(sleep time);
use Workers;

my $redis = RedisServer->new;
my $node = start_mirrored_cluster('both_ways',
	'max_prepared_transactions = 2', 'restart_after_crash = on', 'shared_buffers = 64MB');
create_mirrored_store($node, $redis);
ok(wait_in_sync($node), 'in sync');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# True once the condition is.
sub becomes_true
{
	my ($condition) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	sleep 0.02 while !$condition->() && time < $deadline;
	return $condition->();
}

# The value of a key in Redis, '' when there is none.
sub value { return $redis->command('GET', "sess:$_[0]") // ''; }

sub value_becomes
{
	my ($sid, $expected, $name) = @_;
	return ok(becomes_true(sub { value($sid) eq $expected }), $name) || diag('it is ' . value($sid));
}

sub row_becomes
{
	my ($sid, $expected, $name) = @_;
	return ok($node->poll_query_until('postgres',
			"SELECT coalesce((SELECT sess->>'n' FROM sessions WHERE sid = '$sid' AND expire > now()), 'none')", $expected), $name);
}

# Expiries in milliseconds.
sub same_expiry
{
	my ($sid, $name) = @_;
	return ok(becomes_true(sub {
		my $row = sql("SELECT (extract(epoch FROM expire) * 1000)::bigint FROM sessions WHERE sid = '$sid'");
		return $row eq ($redis->command('PEXPIRETIME', "sess:$sid") // '');
	}), $name);
}

# What PostgreSQL writes, by whatever statement.
for my $owner ('dual_redis_primary', 'dual_pg_primary')
{
	sql("SELECT session_store.set_phase('sessions', '$owner', force => true)");
	ok(wait_in_sync($node), "in sync in $owner");
	sql(q{SELECT session_store.upsert('a', '{"n": 1}', ttl => '1 hour')});
	value_becomes('a', '{"n": 1}', 'a new session reaches Redis');
	same_expiry('a', 'with its expiry');
	sql(q{SELECT session_store.upsert('a', '{"n": 2}', ttl => '2 hours')});
	value_becomes('a', '{"n": 2}', 'a changed one too');
	same_expiry('a', 'with its expiry');
	sql(q{SELECT session_store.touch('a', expire => now() + '3 hours')});
	same_expiry('a', 'a touch moves the expiry');
	sql(q{SELECT session_store.touch('a', expire => 'infinity')});
	ok(becomes_true(sub { $redis->command('TTL', 'sess:a') == -1 }), 'infinity is no expiry');
	sql(q{SELECT session_store.merge('a', '{"n": 3}')});
	value_becomes('a', '{"n": 3}', 'a merge');
	sql(q{UPDATE sessions SET sess = '{"n": 4}' WHERE sid = 'a'});
	value_becomes('a', '{"n": 4}', 'a direct UPDATE');
	for my $times (2, 100)
	{
		sql("DO \$\$ BEGIN FOR i IN 1..$times LOOP UPDATE sessions SET sess = jsonb_build_object('n', i) WHERE sid = 'a'; END LOOP; END \$\$");
		value_becomes('a', qq({"n": $times}), "$times changes in one transaction");
		ok(becomes_true(sub { sql('SELECT count(*) FROM session_store.outbox') == 0 }), 'all of them are settled');
		$redis->command('SET', 'sess:a', '{"n": 0}', 'EX', 1000);
		row_becomes('a', 0, 'so that what Redis writes then is later');
	}
	sql("INSERT INTO sessions (sid, sess, expire) SELECT 'many_$owner' || i, '{\"n\": 0}', now() + '1 hour' FROM generate_series(1, 300) i");
	value_becomes("many_${owner}300", '{"n": 0}', 'a direct INSERT of many');
	sql(q{DELETE FROM sessions WHERE sid LIKE 'many%'});
	value_becomes("many_${owner}300", '', 'a direct DELETE of many');
	sql(q{BEGIN; SELECT session_store.upsert('rolled_back', '{}'); ROLLBACK});
	sql(q{BEGIN; SELECT session_store.upsert('prepared', '{"n": 5}', ttl => '1 hour'); PREPARE TRANSACTION 'p'});
	sql(q{SELECT session_store.upsert('marker', '{"n": 6}', ttl => '1 hour')});
	value_becomes('marker', '{"n": 6}', 'what was committed after a transaction was prepared');
	is(value('prepared'), '', 'comes before it');
	sql(q{COMMIT PREPARED 'p'});
	value_becomes('prepared', '{"n": 5}', 'which comes when it is committed');
	is(value('rolled_back'), '', 'what was rolled back does not');

	# Ends.
	sql(q{SELECT session_store.expire('a')});
	value_becomes('a', '', 'a logout in PostgreSQL ends the session in Redis');
	$redis->command('SET', 'sess:a', '{"n": 7}', 'EX', 100);
	value_becomes('a', '', 'a late write in Redis is deleted again');
	is(sql(q{SELECT count(*) FROM sessions WHERE sid = 'a'}), 0, 'and not copied');
	$redis->command('SET', 'sess:b', '{"n": 1}', 'EX', 1000);
	row_becomes('b', 1, 'a session of Redis comes');
	$redis->command('DEL', 'sess:b');
	row_becomes('b', 'none', 'a logout in Redis ends it here');
	is(sql(q{SELECT session_store.upsert('b', '{"n": 2}') IS NULL}), 't', 'and a late write here is refused');
	sql(q{SELECT session_store.destroy('a'), session_store.destroy('b')});

	# A removal of what is not live is no logout.
	sql(q{SELECT session_store.upsert('short', '{"n": 1}', ttl => '1 hour')});
	value_becomes('short', '{"n": 1}', 'a session');
	sql(q{SELECT session_store.destroy('marker'), session_store.destroy('prepared'), session_store.destroy('short')});
	value_becomes('short', '', 'destroy removes from both sides');
}

# Whatever the payload, what Redis gets is its text as PostgreSQL says it.
sql(q{INSERT INTO sessions (sid, sess, expire) SELECT 'text' || number, sess, now() + '1 hour'
	FROM unnest(ARRAY['null', 'true', '0', '-1.50', '1e400', '123456789012345678901234567890.5', '""', '"a"', '[]', '{}',
		'[[], {}, [{"": []}]]', '{"": {"b": [null, false, -0.10, "", {}], "a": "\"\\\\"}}', '"\\b\\f\\n\\r\\t\"\\\\/"',
		'"\\u0001\\u001f \\u007f\\u00e9\\u20ac\\ud83d\\ude00"', '"plain \\n\\n, then \\\\\\\\ and more \""',
		repeat('[', 400) || '1' || repeat(']', 400)]::jsonb[]) WITH ORDINALITY AS odd (sess, number)});
ok(becomes_true(sub { sql('SELECT count(*) FROM session_store.outbox') == 0 }), 'sessions with all kinds of payloads reach Redis');
my %texts = map { split / /, $_, 2 } split /\n/, sql(q{SELECT sid || ' ' || sess FROM sessions WHERE sid LIKE 'text%'});
is(scalar keys %texts, 16, 'all of them are there');
is_deeply([grep { value($_) ne $texts{$_} } sort keys %texts], [], 'with the text that PostgreSQL gives');
sql(q{DELETE FROM sessions WHERE sid LIKE 'text%'});

# A Redis that is full refuses to be written, and to be read in a transaction: that is said, and over when there is room.
$redis->command('SET', 'sess:ends', '{"n": 1}', 'EX', 1000);
row_becomes('ends', 1, 'a session of Redis');
my $refusals = log_matches($node, 'Redis refused');
$redis->command('CONFIG', 'SET', 'maxmemory', '1');
sql(q{SELECT session_store.upsert('refused', '{"n": 1}', ttl => '1 hour')});
sql(q{SELECT session_store.upsert('waits' || i, '{"n": 1}', ttl => '1 hour') FROM generate_series(1, 40) i});
ok(wait_for_status($node, '^failing: Redis refused .*: OOM'), 'a full Redis is said');
sql('VACUUM FULL session_store.outbox'); # what the mirror has seen in it is elsewhere now
$redis->command('DEL', 'sess:ends');
$redis->command('CONFIG', 'SET', 'maxmemory', '0');
value_becomes('refused', '{"n": 1}', 'what was refused comes when there is room');
is(scalar(grep { value_becomes("waits$_", '{"n": 1}', "waits$_") } 1 .. 40), 40, 'all of it');
ok(becomes_true(sub { sql('SELECT count(*) FROM session_store.outbox') == 0 }), 'and nothing is left of it in the outbox');
row_becomes('ends', 'none', 'and what ended in it meanwhile');
ok(wait_for_status($node, '^in sync'), 'and all is well');
cmp_ok(log_matches($node, 'Redis refused'), '<=', $refusals + 4, 'it was logged once');
# The same with one that is read, and not written.
$refusals = log_matches($node, 'Redis refused');
$redis->command('CONFIG', 'SET', 'min-replicas-to-write', 1);
sql(q{SELECT session_store.upsert('refused', '{"n": 2}', ttl => '1 hour')});
ok(wait_for_status($node, '^failing: Redis refused to write sessions: NOREPLICAS'), 'a Redis that lacks its replicas is said');
$redis->command('CONFIG', 'SET', 'min-replicas-to-write', 0);
value_becomes('refused', '{"n": 2}', 'what was refused comes when it has them');
ok(wait_for_status($node, '^in sync'), 'and all is well again');
cmp_ok(log_matches($node, 'Redis refused'), '<=', $refusals + 4, 'that was logged once too');
sql(q{SELECT session_store.destroy('refused')});

# The same again in a circle: nothing is copied back and forth.
is(sql(q{SELECT session_store.wait_for_mirror('sessions')}), 't', 'all is copied');
my $pushed = stat_mirror($node, 'pushed');
my $applied = stat_mirror($node, 'applied');
sql(q{SELECT session_store.upsert('quiet', '{"n": 1}', ttl => '1 hour')});
value_becomes('quiet', '{"n": 1}', 'one write');
is(sql(q{SELECT session_store.wait_for_mirror('sessions')}), 't', 'all is copied');
is(stat_mirror($node, 'pushed'), $pushed + 1, 'is one push');
is(stat_mirror($node, 'applied'), $applied, 'and nothing comes back');

# Conflicts: both sides change a session while the mirror is held up by a lock on the table.
sub conflict
{
	my ($sid, $in_redis, $in_postgres) = @_;
	$redis->command('SET', "sess:$sid", '{"n": "base"}', 'EX', 5000);
	row_becomes($sid, 'base', "$sid is there");
	is(sql(q{SELECT session_store.wait_for_mirror('sessions')}), 't', 'and settled');
	my $pid = mirror_pid($node);
	stop_process($node, $pid);
	$in_redis->();
	$in_postgres->();
	kill 'CONT', $pid;
	is(sql(q{SELECT session_store.wait_for_mirror('sessions')}), 't', 'the conflict is decided');
	return;
}

for my $case (['dual_redis_primary', 'redis'], ['dual_pg_primary', 'postgres'])
{
	my ($phase, $winner) = @$case;
	sql("SELECT session_store.set_phase('sessions', '$phase', force => true)");
	ok(wait_in_sync($node), "in sync in $phase");
	my $sid = "conflict_$winner";
	conflict($sid,
		sub { $redis->command('SET', "sess:$sid", '{"n": "redis"}', 'EX', 5000) },
		sub { sql("SELECT session_store.upsert('$sid', '{\"n\": \"postgres\"}', ttl => '1 hour')") });
	row_becomes($sid, $winner, 'the owner wins here');
	like(value($sid), qr/$winner/, 'and there');
	same_expiry($sid, 'with its expiry');

	# A touch on one side and a payload on the other are no conflict.
	$sid = "apart_$winner";
	conflict($sid,
		sub { $redis->command('SET', "sess:$sid", '{"n": "redis"}', 'KEEPTTL') },
		sub { sql("SELECT session_store.touch('$sid', expire => '2100-01-01 00:00+00')") });
	row_becomes($sid, 'redis', 'a payload written there stays');
	is(sql("SELECT expire = '2100-01-01 00:00+00' FROM sessions WHERE sid = '$sid'"), 't', 'with the touch made here');
	same_expiry($sid, 'on both sides');
	$sid = "apart2_$winner";
	conflict($sid,
		sub { $redis->command('PEXPIREAT', "sess:$sid", 4102444800000) },
		sub { sql("UPDATE sessions SET sess = '{\"n\": \"postgres\"}' WHERE sid = '$sid'") });
	row_becomes($sid, 'postgres', 'a payload written here stays');
	like(value($sid), qr/postgres/, 'and goes there');
	is($redis->command('PEXPIRETIME', "sess:$sid"), 4102444800000, 'with the touch made there');
	same_expiry($sid, 'on both sides');

	# A logout beats a write, whoever owns the sid.
	$sid = "logout_here_$winner";
	conflict($sid,
		sub { $redis->command('SET', "sess:$sid", '{"n": "redis"}', 'EX', 5000) },
		sub { sql("SELECT session_store.expire('$sid')") });
	row_becomes($sid, 'none', 'a logout here beats a write there');
	is(value($sid), '', 'on both sides');
	$sid = "logout_there_$winner";
	conflict($sid,
		sub { $redis->command('DEL', "sess:$sid") },
		sub { sql("UPDATE sessions SET sess = '{\"n\": \"postgres\"}' WHERE sid = '$sid'") });
	row_becomes($sid, 'none', 'a logout there beats a write here');
	is(value($sid), '', 'on both sides');
}

# Nor does what Redis holds matter to its owner's payload; its expiry is still one.
conflict('no_json',
	sub { $redis->command('SET', 'sess:no_json', '{"n": ', 'PXAT', 4102444800000) },
	sub { sql(q(UPDATE sessions SET sess = '{"n": "postgres"}' WHERE sid = 'no_json')) });
row_becomes('no_json', 'postgres', 'a payload that replaces what is no JSON stays');
like(value('no_json'), qr/postgres/, 'and goes there');
is($redis->command('PEXPIRETIME', 'sess:no_json'), 4102444800000, 'with the expiry made there');
same_expiry('no_json', 'on both sides');
is(sql("SELECT count(*) FROM session_store.rejects"), 0, 'and nothing is rejected');

# Redis is away for a while: the application does not notice, and all comes when it is back.
$redis->stop;
sql(q{INSERT INTO sessions (sid, sess, expire) SELECT 'away' || i, '{"n": 1}', now() + '1 hour' FROM generate_series(1, 2000) i});
sql(q{UPDATE sessions SET sess = '{"n": 2}' WHERE sid LIKE 'away%'});
ok(wait_for_status($node, '^failing: '), 'status says that Redis is away');
sql("UPDATE sessions SET sess = '{\"n\": $_}' WHERE sid LIKE 'away%'") for 3 .. 6;
ok($node->poll_query_until('postgres', "SELECT count(*) <= 8000 FROM session_store.outbox"), 'the outbox is coalesced');
sql(q{UPDATE sessions SET sess = '{"n": 2}' WHERE sid LIKE 'away%'});
ok($node->poll_query_until('postgres', 'SELECT lag_keys >= 4000 AND lag_milliseconds > 0 FROM session_store.status'),
	'and how much waits for it');
$redis->start;
value_becomes('away2000', '{"n": 2}', 'what was written meanwhile comes');
wait_equal($node, $redis, 'both sides are equal');
is(sql('SELECT count(*) FROM session_store.outbox'), 0, 'the outbox is empty');

# A crash may undo the mirror's last transactions, but not that Redis has taken a change: what Redis does later is later.
for my $owner ('dual_redis_primary', 'dual_pg_primary')
{
	sql("SELECT session_store.set_phase('sessions', '$owner', force => true)");
	ok(wait_in_sync($node), "in sync in $owner");
	my $wal_writer = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");
	stop_process($node, $wal_writer);
	sql(qq{SELECT session_store.upsert('${owner}_' || what, '{"n": "here"}', ttl => '1 hour') FROM unnest('{ended,written}'::text[]) what});
	value_becomes("${owner}_$_", '{"n": "here"}', 'two sessions go to Redis') for 'ended', 'written';
	ok($node->poll_query_until('postgres', 'SELECT NOT EXISTS (SELECT FROM session_store.outbox)'), 'which is settled');
	$redis->commands(['DEL', "sess:${owner}_ended"], ['SET', "sess:${owner}_written", '{"n": "there"}', 'EX', 5000]);
	row_becomes("${owner}_ended", 'none', 'one is ended there');
	row_becomes("${owner}_written", 'there', 'the other written');
	my $crashes = log_matches($node, 'reinitializing');
	kill 'KILL', $wal_writer;
	ok(becomes_true(sub { log_matches($node, 'reinitializing') > $crashes && ($node->psql('postgres', 'SELECT 1'))[0] == 0 }),
		'PostgreSQL crashes and comes back');
	ok(wait_in_sync($node), 'in sync');
	is(value("${owner}_ended"), '', 'what was ended stays ended');
	row_becomes("${owner}_ended", 'none', 'on both sides');
	is(value("${owner}_written"), '{"n": "there"}', 'what was written there stays');
	row_becomes("${owner}_written", 'there', 'on both sides');
}

$node->stop;
done_testing();
