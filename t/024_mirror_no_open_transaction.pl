# No worker keeps a transaction open while it waits for Redis, and none of them is slow to stop then.
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
my $node = start_mirrored_cluster('no_open_transaction');
create_mirrored_store($node, $redis,
	server => sprintf "path '%s', connect_timeout '20s', command_timeout '20s'", $redis->socket_path);
$redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 2000);
wait_equal($node, $redis, 'equal before');

# A pause of Redis is as long as the longest transaction that would be kept open in it. Samples it.
sub longest_transaction_while
{
	my ($condition) = @_;
	my $longest = 0;
	my $deadline = time + 30;
	do
	{
		my $age = $node->safe_psql('postgres', q{
			SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) FROM pg_stat_activity
			WHERE backend_type LIKE 'session_store%'});
		$longest = $age if $age > $longest;
	} while (time < $deadline && $condition->());
	return $longest;
}

# In the middle of a burst, so that Redis stalls in the middle of a read.
$redis->send_commands(map { ['SET', "sess:$_", qq({"n": "again $_"}), 'EX', 1000] } 1 .. 20_000);
$redis->read_reply for 1 .. 20_000;
$redis->signal('STOP');
my $until = time + 3;
my $longest = longest_transaction_while(sub { time < $until });
cmp_ok($longest, '<', 1, 'no transaction is as old as the stall');
is($node->safe_psql('postgres', q{
		SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'session_store mirror' AND xact_start IS NOT NULL}),
	0, 'the mirror waits outside a transaction');
is($node->safe_psql('postgres', q{
		SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'session_store mirror' AND backend_xmin IS NOT NULL}),
	0, 'and holds no snapshot');

# Others do not wait for a mirror that waits for Redis.
my $start = time;
$node->safe_psql('postgres', 'CREATE DATABASE bystander');
$node->safe_psql('postgres', 'DROP DATABASE bystander');
$node->safe_psql('postgres', "SELECT session_store.get('1')");
cmp_ok(time - $start, '<', 10, 'DROP DATABASE of another database does not wait for it');

# Nor does the mirror itself wait for Redis to be stopped.
my $pid = mirror_pid($node);
$start = time;
kill 'TERM', $pid;
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid"), 'SIGTERM ends it');
cmp_ok(time - $start, '<', 10, 'before the timeout of its command');

$redis->signal('CONT');
wait_equal($node, $redis, 'equal when Redis goes on');

# A stall longer than the timeout: the connection is given up.
$node->safe_psql('postgres', "ALTER SERVER sessions_redis OPTIONS (SET command_timeout '500ms', SET connect_timeout '500')");
ok($node->poll_query_until('postgres', 'SELECT reconnects > 0 FROM session_store.stat_mirror'), 'shorter timeouts are taken over');
ok(wait_in_sync($node), 'in sync');
$redis->signal('STOP');
ok(wait_for_status($node, '^failing: .*in time'), 'status says that Redis does not answer');
$longest = longest_transaction_while(sub { 0 });
cmp_ok($longest, '<', 1, 'and no transaction is open');
$redis->signal('CONT');
$redis->command('SET', 'sess:after', '{}');
wait_equal($node, $redis, 'equal when Redis goes on');

$node->stop;
done_testing();
