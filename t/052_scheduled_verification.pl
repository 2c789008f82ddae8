# Scheduled verification: by itself, in a process of its own, without a transaction while Redis is
# slow; its result is in status.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;

my $redis = RedisServer->new;
$redis->commands(map { [ 'SET', "sess:s$_", qq({"n": $_}), 'EX', 1000 ] } 1 .. 3000);
my $node = start_mirrored_cluster('scheduled');
my $path = $redis->socket_path;
create_mirrored_store($node, $redis, server => "path '$path', command_timeout '60s'");
ok(wait_in_sync($node), 'the mirror gets in sync');

ok($node->poll_query_until('postgres', 'SELECT last_verification IS NOT NULL AND differences = 0 FROM session_store.status'),
	'the first verification comes by itself');
is($node->safe_psql('postgres', 'SELECT compared BETWEEN 1000 AND 2000 FROM session_store.verifications'), 't',
	'of verify_sample_size sids of each side');
my $first = $node->safe_psql('postgres', 'SELECT verified_at FROM session_store.verifications');
$node->safe_psql('postgres', "UPDATE session_store.stores SET verify_interval = '100 ms'");
ok($node->poll_query_until('postgres', "SELECT verified_at > '$first' FROM session_store.verifications"), 'and the next on schedule');

# A Redis that does not answer holds up the verifier alone.
$node->safe_psql('postgres', "UPDATE session_store.stores SET verify_interval = '1 ms'");
my $kVerifier = "FROM pg_stat_activity WHERE backend_type = 'session_store verifier'";
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 $kVerifier"), 'a verifier is named in pg_stat_activity');
my $stuck = 0;
for (1 .. 200)
{
	$redis->signal('STOP');
	$stuck = $node->safe_psql('postgres', "SELECT count(*) $kVerifier") > 0 && $node->poll_query_until('postgres', qq{
		SELECT count(*) FILTER (WHERE state = 'idle' AND state_change < clock_timestamp() - interval '300 ms') = 1 OR count(*) = 0 $kVerifier});
	last if $stuck && $node->safe_psql('postgres', "SELECT count(*) $kVerifier") > 0;
	$redis->signal('CONT');
}
ok($stuck, 'it waits for Redis');
is($node->safe_psql('postgres', "SELECT count(*) $kVerifier AND xact_start IS NOT NULL"), 0, 'in no transaction');
$redis->signal('CONT');
$first = $node->safe_psql('postgres', 'SELECT verified_at FROM session_store.verifications');
ok($node->poll_query_until('postgres', "SELECT verified_at > '$first' FROM session_store.verifications"), 'and goes on with Redis');

# It leaves with the phase.
$node->safe_psql('postgres', "SELECT session_store.set_phase('sessions', 'redis_only')");
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 $kVerifier"), 'no verification in a single phase');

$node->stop;
done_testing();
