# An eviction is no logout: on_eviction says whether the row stays, and a logout is told from it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;

my $redis = RedisServer->new('--notify-keyspace-events', 'Ee', '--maxmemory-policy', 'allkeys-random');
my $node = start_mirrored_cluster('eviction');
create_mirrored_store($node, $redis);

sub fill { $redis->commands(map { ['SET', "sess:$_", '{"x": "' . 'x' x 1000 . '"}', 'EX', 1000] } 1 .. 500) }

sub rows { return $node->safe_psql('postgres', 'SELECT count(*) FROM sessions WHERE expire > now()') }

# Makes Redis evict many sessions at once. Returns how many are left. What it has in buffers may go just then, and with it
# the need to evict: it is asked again.
sub evict
{
	my $left;
	for (1 .. 100)
	{
		my ($used) = $redis->command('INFO', 'memory') =~ /^used_memory:(\d+)/m;
		$redis->command('CONFIG', 'SET', 'maxmemory', $used - 200_000);
		$redis->command('SET', 'other', 'x' x 1000);
		$redis->command('CONFIG', 'SET', 'maxmemory', 0);
		$left = scalar $redis->keys_under('sess:');
		last if $left < 490;
	}
	return $left;
}

fill();
wait_equal($node, $redis, 'equal before');
my $left = evict();
cmp_ok($left, '<', 490, 'Redis evicts sessions');
my $kept = 500 - $left;
ok($node->poll_query_until('postgres', "SELECT evictions_kept = $kept FROM session_store.stat_mirror"), 'they are known as such');
is(rows(), 500, 'and their rows stay');

# Beside them a logout is a logout.
my ($there) = $redis->keys_under('sess:');
$redis->command('DEL', $there);
my $sid = substr $there, 5;
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM sessions WHERE sid = '$sid'"), 'a logout is told from an eviction');
is(rows(), 499, 'and takes one row');

# They outlast a comparison, and the mirror.
my $pid = mirror_pid($node);
kill 'TERM', $pid;
ok($node->poll_query_until('postgres', "SELECT pid <> $pid FROM session_store.stat_mirror"), 'another mirror');
ok(wait_for_status($node, '^in sync'), 'in sync, with nothing held');
is(rows(), 499, 'the rows are still there');
is($node->safe_psql('postgres', "SELECT count(*) FROM session_store.verify('sessions')"), 0, 'verify counts them apart');

# One that is written again is a session like others.
my %in_redis = map { ($_ => 1) } $redis->keys_under('sess:');
my ($back) = grep { !$in_redis{"sess:$_"} && $_ ne $sid } 1 .. 500;
$redis->command('SET', "sess:$back", '{"back": 1}', 'EX', 1000);
ok($node->poll_query_until('postgres', "SELECT sess ? 'back' FROM sessions WHERE sid = '$back'"), 'an evicted one comes back');
$redis->command('DEL', "sess:$back");
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM sessions WHERE sid = '$back'"), 'and ends like others');

# With "delete" an eviction ends the session.
$node->safe_psql('postgres', "UPDATE session_store.stores SET on_eviction = 'delete'");
fill();
ok($node->poll_query_until('postgres', 'SELECT evictions_kept = 0 FROM session_store.stat_mirror'), 'none is kept once all are back');
wait_equal($node, $redis, 'equal with all of them');
cmp_ok(evict(), '<', 490, 'Redis evicts sessions');
wait_equal($node, $redis, 'their rows go');

$node->stop;
done_testing();
