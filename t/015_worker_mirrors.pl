# The supervisor keeps one mirror for each store in a dual phase, whatever becomes of either. No Redis answers here: a
# mirror that only waits for it is as much of a process as any other.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use Workers;

my $node = start_cluster('mirrors', "session_store.databases = 'postgres, other'");
my $nowhere = $node->data_dir . '/no.sock';
for my $database ('postgres', 'other')
{
	$node->safe_psql('postgres', 'CREATE DATABASE other') if $database eq 'other';
	$node->safe_psql($database, qq{
		CREATE EXTENSION session_store;
		CREATE SERVER r FOREIGN DATA WRAPPER session_store_redis OPTIONS (path '$nowhere');
		SELECT session_store.create_store('one'), session_store.create_store('two');
		UPDATE session_store.stores SET redis_server = 'r', redis_prefix = store || ':';
		SELECT session_store.set_phase('one', 'dual_redis_primary')});
}

sub mirrors
{
	my ($number, $database) = @_;
	return wait_until_true($node,
		"SELECT count(*) = $number FROM pg_stat_activity WHERE backend_type = 'session_store mirror' AND datname = '" . ($database // 'postgres') . "'");
}

my $mirror = wait_for_worker($node, 'mirror', 'postgres');
ok($mirror, 'a store in a dual phase has a mirror');
is($node->safe_psql('postgres', "SELECT pid FROM session_store.stat_mirror WHERE store = 'one'"), $mirror, 'stat_mirror shows its process');
is($node->safe_psql('postgres', "SELECT mirror FROM session_store.status WHERE store = 'two'"), 'off', 'a store in a single phase has none');

# Restarts.
kill 'TERM', $mirror;
my $second = wait_for_worker($node, 'mirror', 'postgres', $mirror);
ok($second, 'a mirror that was stopped is started again');
my $supervisor = worker_pid($node, 'supervisor', 'postgres');
kill 'TERM', $supervisor;
my $supervisor2 = wait_for_worker($node, 'supervisor', 'postgres', $supervisor);
is(worker_pid($node, 'mirror', 'postgres'), $second, 'a mirror outlives its supervisor');
kill 'TERM', $second;
my $third = wait_for_worker($node, 'mirror', 'postgres', $second);
ok($third, 'and the next supervisor looks after it');

# Phases and stores come and go.
$node->safe_psql('postgres', "SELECT session_store.set_phase('two', 'dual_redis_primary')");
ok(mirrors(2), 'each store has its own mirror');
$node->safe_psql('postgres', "SELECT session_store.set_phase('one', 'redis_only', force => true)");
ok(mirrors(1), 'a mirror ends with its phase');
is($node->safe_psql('postgres', "SELECT mirror FROM session_store.status WHERE store = 'one'"), 'off', 'and status says off');
$node->safe_psql('postgres', 'ALTER TABLE two RENAME TO three');
ok(mirrors(1), 'a renamed table keeps its mirror');
$node->safe_psql('postgres', 'DROP TABLE three');
ok(mirrors(0), 'a dropped table ends it');
is(wait_for_worker($node, 'supervisor', 'postgres'), $supervisor2, 'the supervisor goes on');
$node->safe_psql('postgres', "SELECT session_store.set_phase('one', 'dual_redis_primary', force => true)");
ok(mirrors(1), 'a mirror starts again with its phase');
$node->safe_psql('postgres', 'DROP EXTENSION session_store CASCADE');
ok(mirrors(0), 'and ends with the extension');

# Databases.
ok(mirrors(1, 'other'), 'another database has its own');
my $started = time;
is($node->psql('postgres', 'CREATE DATABASE copy TEMPLATE other'), 0, 'a database with a mirror can be copied');
cmp_ok(time - $started, '<', 4, 'without waiting for it');
ok(mirrors(1, 'other'), 'whose mirror comes back');
like($node->safe_psql('copy', "SELECT mirror FROM session_store.status WHERE store = 'one'"), qr/^paused: /, 'the copy is paused');
set_conf($node, 'session_store.databases', 'postgres');
ok(wait_for_no_worker($node, 'other'), 'a database that is not listed any more has no mirror');
set_conf($node, 'session_store.databases', 'postgres, other, copy');
ok(mirrors(1, 'other'), 'and one when it is listed again');
wait_for_worker($node, 'supervisor', 'copy');
ok(mirrors(0, 'copy'), 'a paused copy has none');
is($node->psql('postgres', 'DROP DATABASE other'), 0, 'a database with a mirror can be dropped');

$started = time;
$node->stop('fast');
cmp_ok(time - $started, '<', 10, 'a fast shutdown does not wait for mirrors');
done_testing();
