# set_phase: one step at a time in either direction, with a reason and a remedy where it refuses, and
# force that overrides; every change is in phase_history.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;

my $redis = RedisServer->new;
my $node = start_mirrored_cluster('phases');
my $path = $redis->socket_path;
$node->safe_psql('postgres', qq{
	CREATE SERVER r FOREIGN DATA WRAPPER session_store_redis OPTIONS (path '$path');
	SELECT session_store.create_store();
	UPDATE session_store.stores SET redis_server = 'r', logout_guard = '0';
});
$redis->commands(map { [ 'SET', "sess:s$_", qq({"n": $_}), 'EX', 10000 ] } 1 .. 200);

# What set_phase says; '' when it says nothing.
sub set_phase
{
	my ($arguments) = @_;
	my ($result, $out, $error) = $node->psql('postgres', "SELECT session_store.set_phase('sessions', $arguments)");
	return $error;
}

sub goes
{
	my ($arguments, $name) = @_;
	my $said = set_phase($arguments);
	return unlike($said, qr/ERROR/, $name) || diag($said);
}

sub refused
{
	my ($arguments, $pattern, $name) = @_;
	return like(set_phase($arguments), qr/ERROR: .*$pattern/s, $name);
}

sub phase { return $node->safe_psql('postgres', "SELECT phase || ' ' || rollout_percent FROM session_store.routing()") }

# Until then it still writes to Redis.
sub mirror_leaves
{
	return $node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'session_store mirror'");
}

sub verified
{
	wait_in_sync($node) or die 'not in sync';
	return is($node->safe_psql('postgres', "SELECT session_store.wait_for_mirror('sessions'); SELECT * FROM session_store.verify('sessions')"), 't', 'both sides are equal');
}

# Forward from Redis. The empty store may enter any phase.
goes("'redis_only'", 'an empty store enters redis_only');
like(set_phase("'dual_redis_primary'"), qr/NOTICE:  what Redis holds replaces.*PostgreSQL: 0\. .*Redis: 200\./s, 'entering a dual phase tells both counts');
is(phase(), 'dual_redis_primary 0', 'with no share for PostgreSQL');
ok(wait_in_sync($node), 'the mirror gets in sync');
refused("'pg_only'", "cannot go from dual_redis_primary to pg_only: .*one step at a time.*HINT: .*Go through phase dual_pg_primary", 'two steps at once');
verified();
goes("'dual_redis_primary', 10", 'ten percent');
is(phase(), 'dual_redis_primary 10', 'are noted');
goes("'dual_redis_primary'", 'no percentage');
is(phase(), 'dual_redis_primary 10', 'leaves it as it is');
refused("'dual_redis_primary', 101", 'must be between 0 and 100', 'more than all');
refused("'dual_pg_primary', 10", 'has no rollout_percent', 'a share where there is none');

# The evidence: a verification that is fresh and found nothing.
# A lock keeps the scheduled one from writing.
sub refused_with
{
	my ($change, $arguments, $pattern, $name) = @_;
	my ($result, $out, $error) = $node->psql('postgres', qq{
		BEGIN;
		LOCK TABLE session_store.verifications IN EXCLUSIVE MODE;
		$change;
		SELECT session_store.set_phase('sessions', $arguments)});
	return like($error, qr/ERROR: .*$pattern/s, $name);
}
refused_with('DELETE FROM session_store.verifications', "'dual_redis_primary', 50",
	"have not been compared yet.*HINT: .*Call session_store.verify\\('sessions'\\)", 'not compared yet');
refused_with("UPDATE session_store.verifications SET verified_at = now() - interval '6 minutes', differences = 0", "'dual_redis_primary', 50",
	'is older than verify_interval.*verify', 'compared long ago');
refused_with("UPDATE session_store.verifications SET verified_at = now(), differences = 3", "'dual_pg_primary'",
	'found differences: 3.*resync', 'with differences');
verified();
goes("'dual_redis_primary', 50", 'goes on once verify found nothing');

# Rejects.
$redis->command('HSET', 'sess:hash', 'a', 1);
$node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM session_store.rejects') or die 'no reject';
refused("'dual_redis_primary', 100", 'cannot be mirrored: 1.*session_store.rejects', 'rejects are open');
goes("'dual_redis_primary', 100, force => true", 'force overrides');
$redis->command('DEL', 'sess:hash');
$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM session_store.rejects') or die 'the reject stays';
goes("'dual_redis_primary', 60", 'back by some percent');

# A mirror that is not in sync.
$redis->signal('STOP');
$node->safe_psql('postgres', "ALTER SERVER r OPTIONS (ADD command_timeout '200 ms')");
$node->poll_query_until('postgres', "SELECT mirror ~ '^failing' FROM session_store.status") or die 'not failing';
refused("'dual_pg_primary'", 'mirror is not in sync \(failing: .*session_store.status', 'Redis does not answer');
$node->safe_psql('postgres', "SELECT session_store.upsert('late', '{}')");
refused("'redis_only'", 'not in sync', 'nor back, since ownership would move');
$redis->signal('CONT');
$node->safe_psql('postgres', "ALTER SERVER r OPTIONS (SET command_timeout '60 s')");
ok(wait_in_sync($node), 'in sync again');
verified();
goes("'dual_pg_primary'", 'PostgreSQL owns all');
is($redis->command('GET', 'sess:late'), '{}', 'nothing was lost on the way');

# All the way to PostgreSQL, and all the way back, step by step.
verified();
goes("'pg_only'", 'Redis is off');
ok(mirror_leaves(), 'the mirror leaves');
$node->safe_psql('postgres', "SELECT session_store.upsert('new', '1'), session_store.expire('s1')");
refused("'dual_redis_primary'", 'one step at a time.*Go through phase dual_pg_primary', 'two steps back');
refused("'dual_pg_primary'", 'what PostgreSQL holds would replace the live sessions .* in Redis.*PostgreSQL: 201\. .*Redis: 201\..*force => true', 'entering would replace what Redis holds');
goes("'dual_pg_primary', force => true", 'with force it does');
ok(wait_in_sync($node), 'the mirror gets in sync');
verified();
is($redis->command('GET', 'sess:s1'), undef, 'what PostgreSQL does not have is gone from Redis');
is($redis->command('GET', 'sess:new'), '1', 'and what it has is there');
goes("'dual_redis_primary'", 'back to Redis in one call');
is(phase(), 'dual_redis_primary 0', 'all of it');
ok(wait_in_sync($node), 'the mirror stays in sync');
goes("'redis_only'", 'PostgreSQL is off');
refused("'pg_only'", 'one step at a time.*Go through phase dual_redis_primary', 'a single phase is no step from another');
refused("'pg_only', force => true", 'one step at a time', 'not even with force');

# An empty Redis is filled from PostgreSQL.
goes("'dual_redis_primary', force => true", 'Redis replaces what PostgreSQL held');
ok(wait_in_sync($node), 'the mirror gets in sync');
verified();
goes("'dual_pg_primary'", 'forward again');
verified();
goes("'pg_only'", 'Redis is off again');
ok(mirror_leaves(), 'the mirror leaves');
$redis->command('FLUSHALL');
goes("'dual_pg_primary'", 'no force is needed where Redis is empty');
ok(wait_in_sync($node), 'the mirror gets in sync');
verified();
is($redis->command('DBSIZE') > 200, 1, 'Redis holds the sessions');

# Redis gone for good: leaving needs force, and then works without it.
$redis->stop;
$node->poll_query_until('postgres', "SELECT mirror ~ '^failing' FROM session_store.status") or die 'not failing';
refused("'pg_only'", 'not in sync', 'Redis may hold changes');
goes("'pg_only', force => true", 'force leaves it');
refused("'dual_pg_primary'", 'not known which sessions of Redis would be replaced: could not connect', 'nobody knows what would be replaced');

is($node->safe_psql('postgres', q{
	SELECT string_agg(format('%s %s > %s %s%s', from_phase, from_rollout_percent, to_phase, to_rollout_percent, CASE WHEN forced THEN ' forced' END), E'\n' ORDER BY changed_at)
	FROM session_store.phase_history WHERE changed_by = current_user}), join("\n",
	'pg_only 0 > redis_only 0',
	'redis_only 0 > dual_redis_primary 0',
	'dual_redis_primary 0 > dual_redis_primary 10',
	'dual_redis_primary 10 > dual_redis_primary 50',
	'dual_redis_primary 50 > dual_redis_primary 100 forced',
	'dual_redis_primary 100 > dual_redis_primary 60',
	'dual_redis_primary 60 > dual_pg_primary 0',
	'dual_pg_primary 0 > pg_only 0',
	'pg_only 0 > dual_pg_primary 0 forced',
	'dual_pg_primary 0 > dual_redis_primary 0',
	'dual_redis_primary 0 > redis_only 0',
	'redis_only 0 > dual_redis_primary 0 forced',
	'dual_redis_primary 0 > dual_pg_primary 0',
	'dual_pg_primary 0 > pg_only 0',
	'pg_only 0 > dual_pg_primary 0',
	'dual_pg_primary 0 > pg_only 0 forced'), 'phase_history has every change, and nothing else');

$node->stop;
done_testing();
