# No row is deleted whose session is in Redis, however it looks: a trigger keeps what is deleted.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisProxy;
use RedisServer;
use Test::More;
use Time::HiRes qw(sleep time);

my $secret = 'a password';
my $redis = RedisServer->new;
my $proxy = RedisProxy->new($redis);
my $node = start_mirrored_cluster('no_wrong_delete');
$redis->command('ACL', 'SETUSER', 'mirror', 'on', ">$secret", '~*', '&*', '+@all');
create_mirrored_store($node, $redis, server => $proxy->server, mapping => "username 'mirror', password '$secret'");
$node->safe_psql('postgres', q{
	CREATE TABLE deleted (sid text);
	CREATE FUNCTION note_deleted() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN INSERT INTO public.deleted VALUES (OLD.sid); RETURN OLD; END';
	CREATE TRIGGER note_deleted AFTER DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION note_deleted();
});
$redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 3000);
wait_equal($node, $redis, 'equal before');

sub deleted { return $node->safe_psql('postgres', 'SELECT count(*) FROM deleted') }

# How often Redis has denied something for want of a right.
sub denied
{
	my $count = 0;
	my $errors = $redis->command('INFO', 'errorstats');
	$count += $1 while $errors =~ /^errorstat_(?:NOPERM|EXECABORT):count=(\d+)/mg;
	return $count;
}

# What is said of any database is no reason to delete.
my $gaps = stat_mirror($node, 'gaps');
$redis->commands(['SELECT', 3], ['SET', 'sess:1', '{}'], ['FLUSHDB'], ['SELECT', 0], ['SET', 'sess:1', '{"after": 1}']);
ok($node->poll_query_until('postgres', "SELECT gaps > $gaps FROM session_store.stat_mirror"), 'FLUSHDB of another database is a gap');
wait_equal($node, $redis, 'equal after FLUSHDB of another database');
is(deleted(), 0, 'and nothing was deleted');

# An error is no absence. The mirror reads again and again meanwhile, and compares.
for my $lost ('-getrange', '-exec', '-scan', '-info', 'resetkeys')
{
	my $denied = denied();
	$redis->command('ACL', 'SETUSER', 'mirror', $lost);
	$redis->command('SET', 'sess:2', qq({"without": "$lost"}), 'EX', 1000);
	$proxy->tell('cut');
	my $deadline = time + 60;
	sleep 0.05 while denied() < $denied + 3 && time < $deadline;
	cmp_ok(denied(), '>=', $denied + 3, "the mirror tries again and again with $lost");
	$redis->command('ACL', 'SETUSER', 'mirror', '+@all', '~*');
	wait_equal($node, $redis, "equal once $lost is mended");
	is(deleted(), 0, 'and nothing was deleted');
}

# A key that is renamed while a comparison runs is missing from the SCAN under one of its names.
my $comparisons = stat_mirror($node, 'comparisons');
my ($from, $to) = ('a', 'b');
$redis->commands(map { ['SET', "sess:a$_", qq({"n": $_}), 'EX', 1000] } 1 .. 500);
for my $round (1 .. 5)
{
	$proxy->tell('cut');
	do
	{
		$redis->commands(map { ['RENAME', "sess:$from$_", "sess:$to$_"] } 1 .. 500);
		($from, $to) = ($to, $from);
	} until $node->safe_psql('postgres', "SELECT comparisons >= $comparisons + $round FROM session_store.stat_mirror") eq 't';
}
wait_equal($node, $redis, 'equal after renames during comparisons');
is($node->safe_psql('postgres', "SELECT count(*) FROM deleted WHERE sid ~ '^[0-9]'"), 0, 'nothing that kept its name was deleted');

# A session that runs out here while its renewal is held up: cleanup leaves the row, with what only PostgreSQL knows of it.
$redis->command('SET', 'sess:renewed', '{"renewed": true}', 'PX', 4000);
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM sessions WHERE sid = 'renewed'"), 'a short session');
my $row = $node->safe_psql('postgres', "UPDATE sessions SET user_id = 'anna' WHERE sid = 'renewed' RETURNING version, created_at, user_id");
$proxy->tell('stall');
is($redis->command('EXPIRE', 'sess:renewed', 1000), 1, 'is renewed in Redis');
ok($node->poll_query_until('postgres', "SELECT expire < clock_timestamp() FROM sessions WHERE sid = 'renewed'"), 'runs out here');
is($node->safe_psql('postgres', 'CALL session_store.cleanup()'), 0, 'and is not cleaned up');
$proxy->tell('pass');
wait_equal($node, $redis, 'equal again');
is($node->safe_psql('postgres', "SELECT version, created_at, user_id FROM sessions WHERE sid = 'renewed'"), $row, 'it is the same row');
is($node->safe_psql('postgres', "SELECT session_store.get('renewed')"), '{"renewed": true}', 'it lives on');
is($redis->command('EXISTS', 'sess:renewed'), 1, 'in Redis too');

# One that the mirror knows to have run out on both sides, and whose row is there still, comes back as a new session.
$redis->command('SET', 'sess:again', '{"again": 1}', 'PX', 3000);
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM sessions WHERE sid = 'again'"), 'one more short session');
$row = $node->safe_psql('postgres', "SELECT version, created_at FROM sessions WHERE sid = 'again'");
ok($node->poll_query_until('postgres', "SELECT expire < clock_timestamp() - interval '200 ms' FROM sessions WHERE sid = 'again'"), 'has run out');
is($node->safe_psql('postgres', q{SELECT session_store.wait_for_mirror('sessions')}), 't', 'which the mirror knows');
$redis->command('SET', 'sess:again', '{"again": 1}', 'EX', 1000);
wait_equal($node, $redis, 'equal with its successor');
isnt($node->safe_psql('postgres', "SELECT version, created_at FROM sessions WHERE sid = 'again'"), $row, 'which is another session');

# What has expired on both sides goes once the mirror has seen so.
$redis->command('SET', 'sess:over', '{}', 'PX', 3000);
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM sessions WHERE sid = 'over'"), 'another short session');
ok($node->poll_query_until('postgres', 'CALL session_store.cleanup()', '1'), 'is cleaned up in its time');
$proxy->tell('stall');
$node->safe_psql('postgres', "INSERT INTO sessions (sid, sess, expire) VALUES ('late', '{}', clock_timestamp() + interval '1 s')");
ok($node->poll_query_until('postgres', "SELECT expire < clock_timestamp() FROM sessions WHERE sid = 'late'"), 'Redis does not answer, and a session runs out');
is($node->safe_psql('postgres', 'CALL session_store.cleanup()'), 0, 'which stays until Redis has been asked');
$proxy->tell('pass');
ok($node->poll_query_until('postgres', 'CALL session_store.cleanup()', '1'), 'and goes then');

# A key that lost its expiry never ends.
$redis->commands(['SET', 'sess:forever', '{}', 'PX', 1500], ['SET', 'sess:forever', '{}']);
wait_equal($node, $redis, 'equal with a key that lost its expiry');
is($node->safe_psql('postgres', "SELECT expire FROM sessions WHERE sid = 'forever'"), 'infinity', 'which never ends');

$node->stop;
done_testing();
