# Failover: the mirror follows from one server to another and back, and undoes what the new one never had.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RedisProxy;
use RedisServer;
use Test::More;
use Time::HiRes qw(sleep time);

sub new_redis { return RedisServer->new('--port', PostgreSQL::Test::Cluster::get_free_port(), '--repl-diskless-sync-delay', 0) }

sub port { return $_[0]->command('CONFIG', 'GET', 'port')->[1] }

# True once INFO replication of the server fits.
sub wait_for_replication
{
	my ($redis, $pattern) = @_;
	my $deadline = time + 60;
	until ($redis->command('INFO', 'replication') =~ $pattern)
	{
		return 0 if time > $deadline;
		sleep 0.02;
	}
	return 1;
}

sub follow
{
	my ($replica, $primary) = @_;
	$replica->command('REPLICAOF', '127.0.0.1', port($primary));
	return wait_for_replication($replica, qr/master_link_status:up/);
}

my ($first, $second) = (new_redis(), new_redis());
my $proxy = RedisProxy->new($first);
my $node = start_mirrored_cluster('replicas');
create_mirrored_store($node, $first, server => $proxy->server);
$first->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 200);
wait_equal($node, $first, 'equal before');

# The application and the mirror go to the promoted one.
sub fail_over
{
	my ($old, $new) = @_;
	$new->command('REPLICAOF', 'NO', 'ONE');
	$proxy->tell('target ' . $new->socket_path);
	$proxy->tell('cut');
	$new->commands(['SET', 'sess:1', '{"written": "after"}', 'EX', 1000], ['DEL', 'sess:2'], ['SET', 'sess:new', '{}']);
	wait_equal($node, $new, 'equal with the new one');
}

ok(follow($second, $first), 'a replica follows');
$first->command('SET', 'sess:3', '{"before": "failover"}', 'EX', 1000);
$first->command('WAIT', 1, 0);
fail_over($first, $second);
ok(follow($first, $second), 'the old one becomes a replica');
is($node->safe_psql('postgres', 'SELECT count(*) FROM sessions'), 200, 'nobody was logged out but one');
$second->command('WAIT', 1, 0);
fail_over($second, $first);
is($node->safe_psql('postgres', 'SELECT count(*) FROM sessions'), 200, 'nor on the way back');

# A replica that misses the last writes is promoted: they are undone here.
ok(follow($second, $first), 'a replica follows');
$first->command('WAIT', 1, 0);
$second->command('REPLICAOF', 'NO', 'ONE');
$first->commands((map { ['SET', "sess:lost$_", '{}', 'EX', 1000] } 1 .. 5),
	['SET', 'sess:10', '{"never": "heard of"}', 'EX', 1000], ['DEL', 'sess:11']);
wait_equal($node, $first, 'equal with the primary');
$first->kill_now;
fail_over($first, $second);
is($node->safe_psql('postgres', "SELECT string_agg(sid, ',' ORDER BY sid) FROM sessions WHERE sid ~ 'lost' OR sid = '11'"), 11,
	'what only the old one had is gone, and what it had ended is back');

# The mirror on a replica: waits while that is stale, and follows it when it is promoted.
my $third = new_redis();
ok(follow($third, $second), 'another replica');
$proxy->tell('target ' . $third->socket_path);
$proxy->tell('cut');
$second->command('SET', 'sess:20', '{"through": "the replica"}', 'EX', 1000);
ok($node->poll_query_until('postgres', q{SELECT sess ? 'through' FROM sessions WHERE sid = '20'}), 'a replica can be followed');
$second->kill_now;
ok(wait_for_status($node, '^(failing|waiting): .*(replica|primary|master)'), 'a replica without its primary is said');
$third->command('REPLICAOF', 'NO', 'ONE');
$third->commands(['SET', 'sess:21', '{"promoted": true}', 'EX', 1000], ['DEL', 'sess:22']);
wait_equal($node, $third, 'equal with the promoted one');

# A primary that is demoted keeps its connections: what it then holds is another's.
$second->start;
$second->commands((map { ['SET', "sess:$_", qq({"n": "other $_"}), 'EX', 1000] } 30 .. 200));
my $gaps = stat_mirror($node, 'gaps');
ok(follow($third, $second), 'the primary is demoted');
ok($node->poll_query_until('postgres', "SELECT gaps > $gaps FROM session_store.stat_mirror"), 'which is a gap');
$node->safe_psql('postgres', 'UPDATE session_store.stores SET max_delete_percent = 100');
wait_equal($node, $third, 'equal with what the demoted one took over');

$node->stop;
done_testing();
