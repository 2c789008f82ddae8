# A table that was emptied while PostgreSQL owns the sessions empties no Redis.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use RedisServer;
use Test::More;

my $redis = RedisServer->new;
my $node = start_mirrored_cluster('truncated_owner');
create_mirrored_store($node, $redis);
$redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 100);
wait_equal($node, $redis, 'equal before');
is($node->safe_psql('postgres', "SELECT count(*) FROM session_store.verify('sessions')"), 0, 'and verified');
$node->safe_psql('postgres', "SELECT session_store.set_phase('sessions', 'dual_pg_primary')");
wait_equal($node, $redis, 'PostgreSQL owns all');
$node->safe_psql('postgres', 'TRUNCATE sessions');
ok(wait_for_status($node, 'allow_mass_delete'), 'a truncated table: the deletes wait for an answer');
is(scalar $redis->keys_under('sess:'), 100, 'and Redis keeps all');
$node->safe_psql('postgres', "SELECT session_store.resync('sessions', allow_mass_delete => true)");
wait_equal($node, $redis, 'equal once it was allowed');
is(scalar $redis->keys_under('sess:'), 0, 'Redis is empty then');

$node->stop;
done_testing();
