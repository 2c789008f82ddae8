# A Redis whose clock is not PostgreSQL's: expiries are copied as Redis says them, and no session ends in both for it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;
use Workers;

# Redis asks gettimeofday for its clock: the preloaded one adds so many seconds.
my $directory = PostgreSQL::Test::Utils::tempdir();
append_to_file("$directory/clock.c", q{
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec real;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &real);
	now->tv_sec = real.tv_sec + atoi(getenv("CLOCK_OFFSET"));
	now->tv_usec = real.tv_nsec / 1000;
	return 0;
}
});
system_or_bail('gcc', '-shared', '-fPIC', '-o', "$directory/clock.so", "$directory/clock.c");

my $node = start_mirrored_cluster('clock');
for my $offset (-40, 40)
{
	my $redis;
	{
		local $ENV{LD_PRELOAD} = "$directory/clock.so";
		local $ENV{CLOCK_OFFSET} = $offset;
		$redis = RedisServer->new;
	}
	my $store = $offset < 0 ? 'behind' : 'ahead';
	$redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 20);
	create_mirrored_store($node, $redis, store => $store);
	wait_equal($node, $redis, "$store: equal, with the expiries of Redis", store => $store);
	ok($node->poll_query_until('postgres', qq{
			SELECT abs(clock_difference_milliseconds - $offset * 1000) < 2000 FROM session_store.stat_mirror WHERE store = '$store'}),
		"$store: the difference is measured");

	# Live in Redis for 20 s more. Behind: past its expiry here at once; ahead: 60 s to go here.
	$redis->command('SET', 'sess:short', '{"short": 1}', 'EX', 20);
	ok($node->poll_query_until('postgres', qq{SELECT count(*) = 1 FROM $store WHERE sid = 'short'}), "$store: a short session comes");
	my $expire = $redis->command('PEXPIRETIME', 'sess:short');
	is($node->safe_psql('postgres', "SELECT expire = to_timestamp($expire / 1000.0)::timestamptz(3) FROM $store WHERE sid = 'short'"),
		't', "$store: with its expiry to the millisecond");
	$node->safe_psql('postgres', "CALL session_store.cleanup('$store')");
	is($redis->command('EXISTS', 'sess:short'), 1, "$store: what cleanup does here ends nothing there");
	$redis->command('EXPIRE', 'sess:short', 1000);
	wait_equal($node, $redis, "$store: equal once it was renewed", store => $store);
	is($node->safe_psql('postgres', "SELECT session_store.get('short', '$store')"), '{"short": 1}', "$store: it lives");

	# Written here, with the life that was asked for here.
	$node->safe_psql('postgres', "SELECT session_store.upsert('here', '{\"here\": 1}', ttl => '500 s', store => '$store')");
	wait_equal($node, $redis, "$store: equal with a session of PostgreSQL", store => $store);
	is($redis->command('EXISTS', 'sess:here'), 1, "$store: which is in Redis");
}

$node->stop;
done_testing();
