# More changed keys than the mirror remembers: memory stays bounded, and a comparison finds what was forgotten.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;

my $redis = RedisServer->new('--client-output-buffer-limit', 'pubsub 0 0 0', '--save', '');
my $node = start_mirrored_cluster('overflow');
create_mirrored_store($node, $redis);
$redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 1000);
wait_equal($node, $redis, 'equal before');
my $gaps = stat_mirror($node, 'gaps');

# Nothing can be applied meanwhile.
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE sessions IN SHARE MODE');
for my $part (0 .. 11)
{
	$redis->command('EVAL', q{
		for i = 1, 50000 do
			local key = 'sess:many' .. (ARGV[1] * 50000 + i)
			redis.call('SET', key, '1')
			redis.call('DEL', key)
		end}, 0, $part);
}
$redis->command('EVAL', q{
	for i = 1, 500 do redis.call('DEL', 'sess:' .. i) redis.call('SET', 'sess:new' .. i, '{}', 'EX', 1000) end}, 0);
ok($node->poll_query_until('postgres', "SELECT gaps > $gaps FROM session_store.stat_mirror"), 'the overflow is noticed');
my $pid = mirror_pid($node);
my ($memory) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;
cmp_ok($memory, '<', 200_000, 'memory is bounded');
$locker->query_safe('COMMIT');
$locker->quit;
$node->safe_psql('postgres', 'UPDATE session_store.stores SET max_delete_percent = 100');
wait_equal($node, $redis, 'equal after it');
is($node->safe_psql('postgres', 'SELECT count(*) FROM sessions'), 1000, 'with all that is new and nothing that is gone');

$node->stop;
done_testing();
