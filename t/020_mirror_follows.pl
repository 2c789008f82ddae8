# The mirror follows whatever changes a session in Redis.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;

my $redis = RedisServer->new;
$redis->commands(map { ['SET', "sess:early$_", qq({"n": $_}), 'EX', 1000] } 1 .. 2500);
$redis->command('SET', 'other:1', 'not ours');
my $node = start_mirrored_cluster('follows');
create_mirrored_store($node, $redis);

ok(wait_in_sync($node), 'the mirror gets in sync');
wait_equal($node, $redis, 'what Redis held before is copied');
is($node->safe_psql('postgres', 'SELECT count(*) FROM sessions'), 2500, 'and nothing else');
is($node->safe_psql('postgres', "SELECT redis_sessions FROM session_store.status"), 2500,
	'keys outside the prefix are not counted');

# Passes once the query gives what is expected.
sub becomes
{
	my ($query, $expected, $name) = @_;
	return ok($node->poll_query_until('postgres', $query, $expected), $name);
}

$redis->command('SET', 'sess:a', '{"n": 1}', 'PX', 100_000);
becomes("SELECT session_store.get('a')", '{"n": 1}', 'SET');
my ($version) = $node->safe_psql('postgres', "SELECT version FROM sessions WHERE sid = 'a'");
$redis->command('PEXPIREAT', 'sess:a', 4_000_000_000_123);
becomes("SELECT expire = '2096-10-02 07:06:40.123+00' FROM sessions WHERE sid = 'a'", 't', 'PEXPIREAT, to the millisecond');
is($node->safe_psql('postgres', "SELECT version FROM sessions WHERE sid = 'a'"), $version, 'which is no new version');
$redis->command('PERSIST', 'sess:a');
becomes("SELECT expire FROM sessions WHERE sid = 'a'", 'infinity', 'PERSIST');
$redis->command('SETEX', 'sess:a', 500, '{"n": 2}');
becomes("SELECT sess->>'n' FROM sessions WHERE sid = 'a' AND expire < now() + interval '501 s'", '2', 'SETEX');
is($node->safe_psql('postgres', "SELECT version > $version FROM sessions WHERE sid = 'a'"), 't', 'which is a new version');
$redis->command('SET', 'sess:b', '"ab', 'EX', 500);
$redis->command('APPEND', 'sess:b', 'cd"');
becomes("SELECT session_store.get('b')", '"abcd"', 'APPEND, from a value that was not JSON');
becomes('SELECT count(*) FROM session_store.rejects', '0', 'which is rejected no longer');
$redis->command('RENAME', 'sess:b', 'sess:c');
becomes("SELECT string_agg(sid, ',') FROM sessions WHERE sid IN ('b', 'c')", 'c', 'RENAME');
$redis->command('RENAME', 'sess:c', 'other:c');
becomes("SELECT count(*) FROM sessions WHERE sid = 'c'", '0', 'RENAME out of the prefix');
$redis->command('GETDEL', 'sess:a');
becomes("SELECT count(*) FROM sessions WHERE sid = 'a'", '0', 'GETDEL');
is($node->safe_psql('postgres', "SELECT count(*) FROM session_store.tombstones WHERE NOT by_redis"),
	0, 'leaves no tombstone of an end in PostgreSQL');
is($node->safe_psql('postgres', "SELECT count(*) FROM session_store.tombstones WHERE sid = 'a'"),
	1, 'but one that refuses late writes');
$redis->command('SET', 'sess:short', '{}', 'EX', 1000);
becomes("SELECT count(*) FROM sessions WHERE sid = 'short'", '1', 'a session');
is($redis->command('PEXPIRE', 'sess:short', 300), 1, 'which is short now');
becomes("SELECT session_store.get('short') IS NULL", 't', 'which ends by itself');
$redis->command('EVAL', "redis.call('SET', 'sess:l1', '1', 'EX', 100) redis.call('DEL', 'sess:early1')", 0);
becomes("SELECT string_agg(sid, ',') FROM sessions WHERE sid IN ('l1', 'early1')", 'l1', 'a script');
$redis->command('SWAPDB', 0, 3);
$redis->command('SWAPDB', 0, 3);
wait_equal($node, $redis, 'equal after all of it');

# The table is the user's to rename, move, give away and empty.
$node->safe_psql('postgres', q{
	CREATE SCHEMA elsewhere;
	CREATE ROLE somebody;
	GRANT USAGE ON FOREIGN SERVER sessions_redis TO somebody;
	GRANT USAGE ON SCHEMA elsewhere TO somebody;
	ALTER TABLE sessions SET SCHEMA elsewhere;
	ALTER TABLE elsewhere.sessions RENAME TO renamed;
	ALTER TABLE elsewhere.renamed OWNER TO somebody;
});
$redis->command('SET', 'sess:moved', '{"moved": true}');
becomes("SELECT sess FROM elsewhere.renamed WHERE sid = 'moved'", '{"moved": true}', 'renamed, moved and given away');
$node->safe_psql('postgres', 'TRUNCATE elsewhere.renamed');
becomes("SELECT count(*) >= 2499 FROM elsewhere.renamed", 't', 'a truncated table is filled again');

# Random changes while nobody looks, then equal.
$node->safe_psql('postgres', q{
	ALTER TABLE elsewhere.renamed RENAME TO sessions;
	ALTER TABLE elsewhere.sessions SET SCHEMA public;
});
srand 20261122;
for my $round (1 .. 8)
{
	my @commands;
	for (1 .. 2500)
	{
		my $key = 'sess:r' . int rand 800;
		my $value = sprintf '{"round": %d, "x": "%s"}', $round, 'y' x rand 300;
		my $what = int rand 7;
		push @commands,
			$what <= 1 ? ['SET', $key, $value, 'EX', 1000 + int rand 1000]
		  : $what == 2 ? ['SET', $key, $value]
		  : $what == 3 ? ['PEXPIRE', $key, 100_000 + int rand 100_000]
		  : $what == 4 ? ['DEL', $key]
		  : $what == 5 ? ['PERSIST', $key]
		  :              ['SETEX', $key, 1 + int rand 3, $value];
	}
	$redis->commands(@commands);
}
wait_equal($node, $redis, 'equal after 20000 random changes');
is(stat_mirror($node, 'reconnects'), 0, 'over one connection');

# Leaving the phase stops the mirror, entering it again asks first.
my ($result, $out, $error) = $node->psql('postgres', "SELECT session_store.set_phase('sessions', 'pg_only')");
like($error, qr/one step at a time/, 'leaving for PostgreSQL goes through dual_pg_primary');
$node->safe_psql('postgres', "SELECT session_store.set_phase('sessions', 'redis_only')");
ok($node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'session_store mirror'"),
	'the mirror leaves with the phase');
$redis->command('SET', 'sess:late', '1');
$redis->command('DEL', 'sess:moved');
($result, $out, $error) = $node->psql('postgres', "SELECT session_store.set_phase('sessions', 'dual_redis_primary')");
like($error, qr/would replace the live sessions/, 'entering asks for force');
$node->safe_psql('postgres', "SELECT session_store.set_phase('sessions', 'dual_redis_primary', force => true)");
wait_equal($node, $redis, 'and then Redis replaces what PostgreSQL held');

$node->stop;
done_testing();
