# Trouble with Redis: said in status and once in the log, without a password, and over by itself.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;
use Time::HiRes qw(sleep time);
use Workers;

my $secret = 'correct horse battery staple';
my $wrong = 'incorrect-horse-password';
my $redis = RedisServer->new;
my $node = start_mirrored_cluster('trouble', 'log_statement = none');
my $password_file = PostgreSQL::Test::Utils::tempdir() . '/password';
create_mirrored_store($node, $redis, server => "path '/nonexistent/redis.sock'");

# Nobody is there.
ok(wait_for_status($node, '^failing: .*No such file'), 'status says that there is no socket');
like($node->safe_psql('postgres', 'SELECT last_error FROM session_store.status'), qr/could not connect/,
	'and keeps the error');
# A wrong port, refused at once.
$node->safe_psql('postgres',
	"ALTER SERVER sessions_redis OPTIONS (DROP path, ADD host '127.0.0.1', ADD port '1', ADD connect_timeout '1s')");
ok(wait_for_status($node, '^failing: .*refused'), 'status says that the port is wrong');

# The right one, which wants a password.
$redis->command('CONFIG', 'SET', 'requirepass', $secret);
$redis->{password} = $secret;
$redis->command('AUTH', $secret);
$redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 100);
$node->safe_psql('postgres',
	sprintf "ALTER SERVER sessions_redis OPTIONS (DROP host, DROP port, ADD path '%s')", $redis->socket_path);
ok(wait_for_status($node, '^failing: .*(NOAUTH|password)'), 'status says that a password is needed');
$node->safe_psql('postgres', "CREATE USER MAPPING FOR CURRENT_USER SERVER sessions_redis OPTIONS (password '$wrong')");
ok(wait_for_status($node, '^failing: .*(WRONGPASS|password)'), 'status says that the password is wrong');
# Redis counts what it denied: the mirror has tried more than once.
my $denied = 0;
for (my $deadline = time + 60; $denied < 5 && time < $deadline; sleep 0.05)
{
	($denied) = $redis->command('INFO', 'commandstats') =~ /^cmdstat_auth:.*failed_calls=(\d+)/m;
}
cmp_ok($denied, '>=', 5, 'the mirror tries again and again');
is(log_matches($node, 'mirror of store "sessions": .*(NOAUTH|WRONGPASS)'), 2, 'each error is logged once');
append_to_file($password_file, "$secret\n");
$node->safe_psql('postgres',
	"ALTER USER MAPPING FOR CURRENT_USER SERVER sessions_redis OPTIONS (DROP password, ADD password_file '$password_file')");
wait_equal($node, $redis, 'the right password, from a file, ends the trouble');
ok($node->log_contains('mirror of store "sessions" follows Redis again'), 'which is logged');
$node->safe_psql('postgres',
	"ALTER USER MAPPING FOR CURRENT_USER SERVER sessions_redis OPTIONS (DROP password_file, ADD username 'default', ADD password '$secret')");
ok($node->poll_query_until('postgres', 'SELECT reconnects >= 1 FROM session_store.stat_mirror'),
	'changed options are taken over while connected');
wait_equal($node, $redis, 'a user name and a password work');
$node->safe_psql('postgres', "ALTER SERVER sessions_redis OPTIONS (DROP path, ADD host 'localhost', ADD tls 'on')");
ok(wait_for_status($node, '^failing: .*TLS'), 'TLS is refused where the build has none');
$node->safe_psql('postgres',
	sprintf "ALTER SERVER sessions_redis OPTIONS (DROP host, DROP tls, ADD path '%s')", $redis->socket_path);
ok(wait_in_sync($node), 'in sync again');

# Redis is killed, and comes back with older data.
$redis->command('CONFIG', 'SET', 'save', '3600 1');
# It answers once in a kilobyte of what it loads: these are so many looks.
$redis->commands(map { ['SET', "other:$_", join '', map { chr rand 256 } 1 .. 1100] } 1 .. 600);
$redis->command('SAVE');
$redis->command('SET', 'sess:lost', '{"lost": true}', 'EX', 1000);
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM sessions WHERE sid = 'lost'"), 'a session comes');
$redis->kill_now;
ok(wait_for_status($node, '^failing: '), 'status says that Redis is gone');
$redis->start('--requirepass', $secret);
wait_equal($node, $redis, 'equal with the older data');
is($node->safe_psql('postgres', "SELECT count(*) FROM sessions WHERE sid = 'lost'"), 0, 'what Redis lost is gone');

# Redis loads its data for long: it answers, but does not have its keys yet.
$redis->stop;
$redis->start('--requirepass', $secret, '--key-load-delay', 100_000, '--loading-process-events-interval-bytes', 1024);
ok(wait_for_status($node, '^waiting: .*loading'), 'status says that Redis is loading');
is($node->safe_psql('postgres', 'SELECT count(*) FROM sessions'), 100, 'and nothing is deleted meanwhile');
$redis->command('CONFIG', 'SET', 'key-load-delay', 0);
wait_equal($node, $redis, 'equal once it has loaded');

# Redis comes back empty: that is no mass logout.
$redis->kill_now;
unlink $redis->{directory} . '/dump.rdb';
$redis->start('--requirepass', $secret);
$redis->commands(map { ['SET', "sess:new$_", '{}', 'EX', 1000] } 1 .. 5);
ok(wait_for_status($node, '^paused: 100 of 10[0-5] live sessions are not in Redis'), 'an empty Redis empties nothing');
is($node->safe_psql('postgres', "SELECT count(*) FROM sessions WHERE sid NOT LIKE 'new%'"), 100, 'all sessions are there');
ok($node->poll_query_until('postgres', "SELECT count(*) = 5 FROM sessions WHERE sid LIKE 'new%'"), 'new ones come');
$redis->command('DEL', 'sess:new1');
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM sessions WHERE sid = 'new1'"), 'single logouts pass');
$node->safe_psql('postgres', "UPDATE session_store.stores SET max_delete_percent = 100");
wait_equal($node, $redis, 'the answer is to raise max_delete_percent');
is($node->safe_psql('postgres', 'SELECT count(*) FROM sessions'), 4, 'then they go');
$node->safe_psql('postgres', "UPDATE session_store.stores SET max_delete_percent = 20");
$redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 100);
wait_equal($node, $redis, 'equal again');
$redis->command('FLUSHALL');
ok(wait_for_status($node, '^paused: 104 of 104 live sessions are not in Redis'), 'a flush empties nothing');
$redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 100);
$node->safe_psql('postgres', "UPDATE session_store.stores SET max_delete_percent = 15");
wait_equal($node, $redis, 'nor does it last when most of them are there again');

# The database is in the way.
my $locker = $node->background_psql('postgres');
$locker->query_safe("BEGIN; SELECT FROM sessions WHERE sid = '2' FOR UPDATE");
$redis->command('SET', 'sess:2', '{"n": "changed"}', 'EX', 1000);
$redis->command('SET', 'sess:3', '{"n": "changed"}', 'EX', 1000);
ok($node->poll_query_until('postgres', q{SELECT sess->>'n' = 'changed' FROM sessions WHERE sid = '3'}),
	'a locked session does not hold up another');
is($node->safe_psql('postgres', q{SELECT sess->>'n' FROM sessions WHERE sid = '2'}), 2, 'it waits itself');
$locker->query_safe('COMMIT');
ok($node->poll_query_until('postgres', q{SELECT sess->>'n' = 'changed' FROM sessions WHERE sid = '2'}), 'and then changes');
$locker->query_safe('BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE');
$redis->command('SET', 'sess:3', '{"n": "behind a lock"}', 'EX', 1000);
ok($node->poll_query_until('postgres', 'SELECT lag_keys > 0 FROM session_store.stat_mirror'), 'a locked table is waited for');
$locker->query_safe('COMMIT');
ok($node->poll_query_until('postgres', q{SELECT sess->>'n' = 'behind a lock' FROM sessions WHERE sid = '3'}), 'and then written');
$locker->quit;

$node->safe_psql('postgres', q{ALTER TABLE sessions ADD CONSTRAINT no_evil CHECK (sess->>'evil' IS NULL)});
$redis->commands(['SET', 'sess:evil', '{"evil": 1}'], ['SET', 'sess:good', '{"evil": null}']);
ok($node->poll_query_until('postgres', q{SELECT reason ~ 'no_evil' FROM session_store.rejects}), 'a constraint rejects');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM sessions WHERE sid = 'good'}), 'what it concerns only');
$node->safe_psql('postgres', q{
	CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM * FROM no_such_table; RETURN NEW; END';
	CREATE TRIGGER broken BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION broken();
});
$redis->command('SET', 'sess:broken', '{}');
ok(wait_for_status($node, '^failing: .*no_such_table'), 'a broken trigger is said');
is($node->safe_psql('postgres', 'SELECT count(*) FROM session_store.rejects'), 1, 'and rejects nothing');
$node->safe_psql('postgres', 'DROP TRIGGER broken ON sessions');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM sessions WHERE sid = 'broken'}), 'mending it ends it');

# A rejected option's statement would be logged with its error, were it not hidden.
$node->psql('postgres',
	"ALTER USER MAPPING FOR CURRENT_USER SERVER sessions_redis OPTIONS (SET password '$wrong', ADD hots 'h')");
my $log = slurp_file($node->logfile);
like($log, qr/invalid option "hots"/, 'a rejected option is logged');
unlike($log, qr/\Q$secret\E|\Q$wrong\E/, 'no password in the log');
my $shown = $node->safe_psql('postgres', 'SELECT * FROM session_store.status; SELECT * FROM session_store.stat_mirror');
unlike($shown, qr/\Q$secret\E|\Q$wrong\E/, 'nor in status');
is(log_matches($node, 'mirror of store "sessions": .*:1: Connection refused'), 1, 'the wrong port was logged once');

$node->stop;
done_testing();
