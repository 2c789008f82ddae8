# A Redis that lost its data empties nothing; what happens then is for a person to say, who may also give it all back.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;
use Time::HiRes qw(time);

my $redis = RedisServer->new;
my $node = start_mirrored_cluster('lost_data');
create_mirrored_store($node, $redis);

sub fill { $redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 100) }

sub count { return $node->safe_psql('postgres', 'SELECT count(*) FROM sessions WHERE expire > now()') }

# Passes once the deletes wait for an answer; the status says which.
sub held
{
	my ($name) = @_;
	ok(wait_for_status($node, 'allow_mass_delete'), "$name: the deletes wait for an answer");
	is(count(), 100, "$name: nobody is logged out");
	is(scalar $redis->keys_under('sess:'), 0, "$name: nothing came back by itself");
}

sub resync
{
	my ($how) = @_;
	$node->safe_psql('postgres', "SELECT session_store.resync('sessions', $how)");
}

fill();
wait_equal($node, $redis, 'equal before');

# Everything at once is lost, in each way there is; the answers alternate.
for my $case (
	['FLUSHALL', 0, sub { $redis->command('FLUSHALL') }],
	['FLUSHDB', 1, sub { $redis->command('FLUSHDB', 'ASYNC') }],
	['an empty restart', 0, sub { $redis->kill_now; $redis->start }],
	['SWAPDB', 1, sub { $redis->command('SWAPDB', 0, 5) }],
	['SWAPDB again', 0, sub { $redis->command('FLUSHALL'); held('FLUSHALL before SWAPDB'); resync('refill_redis => true');
		wait_equal($node, $redis, 'filled again'); $redis->command('SWAPDB', 0, 6) }])
{
	my ($name, $refill, $loss) = @$case;
	my $start = time;
	$loss->();
	held($name);
	cmp_ok(time - $start, '<', 60, "$name: noticed by itself");
	if ($refill)
	{
		resync('refill_redis => true');
		wait_equal($node, $redis, "$name: equal once Redis was refilled");
		is(count(), 100, "$name: nobody was logged out");
		is(scalar $redis->keys_under('sess:'), 100, "$name: all are back in Redis");
		next;
	}
	resync('allow_mass_delete => true');
	wait_equal($node, $redis, "$name: equal once it was allowed");
	is(count(), 0, "$name: all are gone");
	fill();
	wait_equal($node, $redis, "$name: equal again");
}

# What is within max_delete_percent goes by itself: an older dump misses the last sessions and has ended ones.
$redis->command('CONFIG', 'SET', 'save', '3600 1');
$redis->command('SAVE');
$redis->commands(['SET', 'sess:newer', '{}', 'EX', 1000], ['DEL', 'sess:7'], ['SET', 'sess:8', '{"changed": true}', 'EX', 1000]);
wait_equal($node, $redis, 'equal before the kill');
$redis->kill_now;
$redis->start;
wait_equal($node, $redis, 'equal with the older dump');
is(count(), 100, 'what was newer is gone, what had been ended is back');

# While the deletes wait all else goes on, single logouts too.
$redis->command('FLUSHALL');
held('another FLUSHALL');
$redis->commands(['SET', 'sess:9', '{"after": 1}', 'EX', 1000], ['SET', 'sess:new', '{"after": 2}', 'EX', 1000]);
ok($node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM sessions WHERE sess ? 'after'}), 'sessions come while deletes wait');
$redis->command('DEL', 'sess:9');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM sessions WHERE sid = '9'}), 'a logout passes while deletes wait');
my $pid = mirror_pid($node);
kill 'TERM', $pid;
ok($node->poll_query_until('postgres', "SELECT pid <> $pid AND applied >= 0 FROM session_store.stat_mirror"), 'another mirror');
ok(wait_for_status($node, 'allow_mass_delete'), 'asks again');
cmp_ok(count(), '>=', 99, 'and has deleted nothing');
resync('refill_redis => true');
wait_equal($node, $redis, 'equal in the end');
is(count(), 100, 'with all but the one that logged out');

$node->stop;
done_testing();
