# Two clusters never mirror the same Redis and prefix: the second waits, says for whom, and takes over when that is gone.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;

my $redis = RedisServer->new;
$redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 50);
my $first = start_mirrored_cluster('lease_first');
my $second = start_mirrored_cluster('lease_second');
create_mirrored_store($first, $redis);
wait_equal($first, $redis, 'the first cluster mirrors');
create_mirrored_store($second, $redis);
ok(wait_for_status($second, '(another|other) '), 'the second says that another mirror is there');
is($second->safe_psql('postgres', 'SELECT count(*) FROM sessions'), 0, 'and has copied nothing');
unlike($second->safe_psql('postgres', 'SELECT mirror FROM session_store.status'), qr/^in sync/, 'it is not in sync');

# Another prefix of the same Redis is free, and the lease itself is no session of an empty one.
$redis->command('SET', 'other:1', '{}', 'EX', 1000);
create_mirrored_store($second, $redis, store => 'others', prefix => 'other:');
wait_equal($second, $redis, 'another prefix is mirrored', store => 'others', prefix => 'other:');

# The second takes over once the first has left, or has died.
$first->safe_psql('postgres', "SELECT session_store.set_phase('sessions', 'redis_only')");
wait_equal($second, $redis, 'the second takes over when the first leaves');
$first->safe_psql('postgres', "SELECT session_store.set_phase('sessions', 'dual_redis_primary', force => true)");
ok(wait_for_status($first, '(another|other) '), 'now the first has to wait');
$second->stop('immediate');
wait_equal($first, $redis, 'it takes over when the second has died');
ok(!(grep { /lease/ && /^sess:/ } $redis->keys_under('')), 'the lease is outside the prefix');

$first->stop;
done_testing();
