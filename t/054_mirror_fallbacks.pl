# Where Redis does not let client tracking be used, the mirror follows by keyspace notifications, or by comparisons
# alone: chosen by itself, said in stat_mirror, and nothing is lost.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use RedisServer;
use Test::More;
use Workers;

my $secret = 'a password';
my $node = start_mirrored_cluster('fallbacks');
for my $case (
	[ 'notified', 'AKE', ['-client|tracking'], qr/^notifications: .*CLIENT TRACKING/ ],
	[ 'compared', '', ['-client|tracking', '-psubscribe', '-subscribe'], qr/^comparisons only: .*CLIENT TRACKING/ ])
{
	my ($store, $events, $rights, $feed) = @$case;
	my $redis = RedisServer->new;
	$redis->command('CONFIG', 'SET', 'notify-keyspace-events', $events);
	$redis->command('ACL', 'SETUSER', 'mirror', 'on', ">$secret", '~*', '&*', '+@all', @$rights);
	$redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 100);
	create_mirrored_store($node, $redis, store => $store, mapping => "username 'mirror', password '$secret'");
	wait_equal($node, $redis, "$store: equal", store => $store);
	like(stat_mirror($node, 'feed', $store), $feed, "$store: stat_mirror says how it follows, and why");

	# Changes of both sides, which wait_for_mirror waits for.
	for my $round (1 .. 3)
	{
		$redis->commands(
			['SET', "sess:new$round", qq({"new": $round}), 'EX', 1000], ['SET', "sess:$round", qq({"changed": $round}), 'EX', 2000],
			['EXPIRE', 'sess:' . (20 + $round), 3000 + $round], ['PERSIST', 'sess:' . (40 + $round)],
			['DEL', 'sess:' . (60 + $round)], ['RENAME', 'sess:' . (80 + $round), "sess:renamed$round"]);
		$node->safe_psql('postgres', "SELECT session_store.upsert('here$round', '{}', ttl => '1 hour', store => '$store'), session_store.expire('" . (10 + $round) . "', '$store')");
		is($node->safe_psql('postgres', "SELECT session_store.wait_for_mirror('$store', '60 s')"), 't', "$store: the mirror has copied all");
		is(differences($node, $redis, store => $store), '', "$store: equal after changes of both sides");
	}
	is($node->safe_psql('postgres', "SELECT count(*) FROM session_store.verify('$store')"), 0, "$store: verify finds no difference");

	# A flush is announced by nothing, and empties no table.
	$redis->command('FLUSHALL');
	ok(wait_for_status($node, 'allow_mass_delete', $store), "$store: a flush is noticed, and its deletes wait");
	is($node->safe_psql('postgres', "SELECT count(*) FROM $store"), 100, "$store: nobody is logged out");
	$node->safe_psql('postgres', "SELECT session_store.resync('$store', refill_redis => true)");
	wait_equal($node, $redis, "$store: equal once Redis was refilled", store => $store);

	# With the rights there it is client tracking, from the next connection on.
	$redis->command('ACL', 'SETUSER', 'mirror', '+@all');
	$redis->command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
	ok($node->poll_query_until('postgres', "SELECT feed = 'tracking' FROM session_store.stat_mirror WHERE store = '$store'"), "$store: tracking once it may");
	$redis->command('SET', 'sess:tracked', '{"tracked": 1}', 'EX', 1000);
	wait_equal($node, $redis, "$store: equal with it", store => $store);
}

$node->stop;
done_testing();
