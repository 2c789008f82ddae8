# After a SIGTERM or kill -9 of the mirror and an immediate shutdown, all under load, both sides get equal again.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;
use Time::HiRes qw(time);
use Workers;

my $redis = RedisServer->new;
my $node = start_mirrored_cluster('restarts', 'restart_after_crash = on');
create_mirrored_store($node, $redis);
ok(wait_in_sync($node), 'in sync');
# Mirrors that end one after another leave the deletes of all of them to the last one's comparison.
$node->safe_psql('postgres', 'UPDATE session_store.stores SET max_delete_percent = 100');

# Applies random changes for as long as the condition is false; dies after a minute.
srand 20261122;
sub write_until
{
	my ($done) = @_;
	my $deadline = time + 60;
	do
	{
		die 'the condition did not come true under load' if time > $deadline;
		my @commands;
		for (1 .. 300)
		{
			my $key = 'sess:' . int rand 3000;
			my $what = int rand 10;
			push @commands,
				$what <= 5 ? ['SET', $key, sprintf('{"n": %d}', rand 1e9), 'EX', 1000 + int rand 1000]
			  : $what <= 7 ? ['EXPIRE', $key, 1000 + int rand 1000]
			  :              ['DEL', $key];
		}
		$redis->commands(@commands);
	} until ($done->());
}

# True when a query gives true; false while the server is down.
sub holds
{
	my ($query) = @_;
	my ($result, $out) = $node->psql('postgres', $query);
	return $result == 0 && $out eq 't';
}

sub new_mirror_applies
{
	my ($than) = @_;
	return sub { holds("SELECT pid <> $than AND applied > 300 FROM session_store.stat_mirror") };
}

write_until(sub { holds('SELECT applied > 3000 FROM session_store.stat_mirror') });
for my $round (1 .. 3)
{
	my $pid = mirror_pid($node);
	kill 'TERM', $pid;
	write_until(new_mirror_applies($pid));
}
wait_equal($node, $redis, 'equal after SIGTERM of the mirror under load');

my $pid = mirror_pid($node);
write_until(sub { kill 'KILL', $pid; 1 });
write_until(new_mirror_applies($pid));
wait_equal($node, $redis, 'equal after kill -9 of the mirror under load');
cmp_ok(log_matches($node, 'all server processes terminated; reinitializing'), '>=', 1,
	'which PostgreSQL answers by starting all backends again');

$pid = mirror_pid($node);
write_until(sub { 1 });
$node->stop('immediate');
write_until(sub { 1 });
$node->start;
write_until(new_mirror_applies(-1));
wait_equal($node, $redis, 'equal after an immediate shutdown under load');

# The connection is cut under load, again and again.
for (1 .. 5)
{
	my $reconnects = stat_mirror($node, 'reconnects');
	my $comparisons = stat_mirror($node, 'comparisons');
	$redis->command('CLIENT', 'KILL', 'TYPE', 'pubsub');
	write_until(sub {
		holds("SELECT reconnects > $reconnects AND comparisons > $comparisons FROM session_store.stat_mirror")
	});
}
wait_equal($node, $redis, 'equal after five cuts of the connection under load');
cmp_ok(stat_mirror($node, 'gaps'), '>=', 5, 'the gaps are counted');

# An overrun of the output buffer: the hints of 60,000 keys that nobody reads.
$redis->command('CONFIG', 'SET', 'client-output-buffer-limit', 'pubsub 100kb 50kb 1');
my $mirror = mirror_pid($node);
stop_process($node, $mirror);
$redis->commands(map { ['SET', "sess:burst$_", "{\"n\": $_}", 'EX', 1000] } 1 .. 60_000);
kill 'CONT', $mirror;
wait_equal($node, $redis, 'equal after an overrun of the output buffer');

# A database that was copied from another never talks to its Redis by itself.
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE postgres');
$node->append_conf('postgresql.conf', "session_store.databases = 'copy, postgres'\n");
$node->reload;
ok($node->poll_query_until('copy', "SELECT mirror ~ '^paused: .*set_phase' FROM session_store.status"),
	'in a copy of the database the mirror is paused and says so');
ok($node->poll_query_until('copy',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'session_store supervisor' AND datname = 'copy'"),
	'though a supervisor runs there');
$node->safe_psql('copy', "SELECT session_store.set_phase('sessions', 'dual_redis_primary')");
ok($node->poll_query_until('copy', "SELECT mirror ~ '^paused: the mirror of another' FROM session_store.status"),
	'set_phase binds the store to the copy, and the lease refuses a second mirror');
$node->safe_psql('postgres', "SELECT session_store.set_phase('sessions', 'redis_only', force => true)");
ok($node->poll_query_until('copy', "SELECT mirror = 'in sync' FROM session_store.status"),
	'until the first has left');

$node->stop;
done_testing();
