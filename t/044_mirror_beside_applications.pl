# The application never waits for the mirror's locks and is never the victim of a deadlock with it, whatever it does.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Mirrored;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;
use Time::HiRes qw(time);
use Workers;

my $redis = RedisServer->new;
my $node = start_mirrored_cluster('beside_applications', "deadlock_timeout = '20ms'");
create_mirrored_store($node, $redis);
$redis->commands(map { ['SET', "sess:$_", '{"n": 0}', 'EX', 1000] } 1 .. 200);
wait_equal($node, $redis, 'equal before');

# Six random sessions a transaction in no order, by one application, so that only the mirror could be in its way;
# lock_timeout is what it may wait at most for a row, beside a mirror that writes the same rows all the time.
my $script = "\\set s0 random(1, 200)\n" . join('', map { "\\set s$_ random(1, 200)\n" } 1 .. 5) . "BEGIN;\n"
  . join('', map { "UPDATE sessions SET sess = jsonb_set(sess, '{p}', '$_') WHERE sid = :s$_\::text;\n" } 0 .. 5) . "COMMIT;\n";
my $file = PostgreSQL::Test::Utils::tempdir() . '/six.sql';
append_to_file($file, $script);
my ($out, $err) = ('', '');
local $ENV{PGOPTIONS} = "-c lock_timeout=1s";
my $application = IPC::Run::start(
	['pgbench', '-n', '-c', 1, '-T', 5, '-f', $file, '-h', $node->host, '-p', $node->port, 'postgres'],
	'>', \$out, '2>', \$err);
my $round = 0;
while ($application->pumpable)
{
	$round++;
	$redis->commands(map { ['SET', 'sess:' . (1 + int rand 200), qq({"n": $round}), 'EX', 1000 + $round] } 1 .. 200);
	$application->pump_nb;
}
$application->finish;
like($out, qr/number of transactions actually processed: [1-9]/, 'the application got on');
unlike($err, qr/deadlock|ERROR/, 'with no deadlock and no long wait') or diag $err;
is(log_matches($node, 'deadlock detected'), 0, 'nor was the mirror in one')
	or diag slurp_file($node->logfile) =~ /^(.*deadlock detected(?:.*\n){1,12})/mg;
wait_equal($node, $redis, 'equal after it');

# Somebody sits in a transaction, with a snapshot, a change of its own and a row lock, for as long as this takes.
my $sitter = $node->background_psql('postgres');
$sitter->query_safe(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM sessions;
	UPDATE sessions SET sess = '{"by": "the sitter"}' WHERE sid = '1'});
$redis->commands(map { ['SET', "sess:$_", '{"n": "beside"}', 'EX', 2000] } 1 .. 200);
ok($node->poll_query_until('postgres', q{SELECT count(*) = 199 FROM sessions WHERE sess->>'n' = 'beside'}),
	'all others are copied beside a row lock');
$node->safe_psql('postgres', q{UPDATE sessions SET sess = '{"from": "here"}' WHERE sid BETWEEN '20' AND '29'});
my $deadline = time + 60;
1 while time < $deadline && grep { $redis->command('GET', "sess:$_") !~ /from/ } 20 .. 29;
is(scalar(grep { $redis->command('GET', "sess:$_") =~ /from/ } 20 .. 29), 10, 'and what changes here arrives there');
is($redis->command('GET', 'sess:1'), '{"n": "beside"}', 'what is not committed does not');
$sitter->query_safe('ROLLBACK');
wait_equal($node, $redis, 'equal once the row is free');
$sitter->quit;

# A prepared transaction is a change when it is committed.
$node->append_conf('postgresql.conf', 'max_prepared_transactions = 2');
$node->restart;
wait_equal($node, $redis, 'equal after a restart');
$node->safe_psql('postgres', q{BEGIN; UPDATE sessions SET sess = '{"two": "phases"}' WHERE sid = '2'; PREPARE TRANSACTION 'x'});
$redis->command('SET', 'sess:3', '{"meanwhile": 1}', 'EX', 1000);
ok($node->poll_query_until('postgres', q{SELECT sess ? 'meanwhile' FROM sessions WHERE sid = '3'}), 'others are copied');
unlike($redis->command('GET', 'sess:2'), qr/phases/, 'what is prepared is not');
$node->safe_psql('postgres', "COMMIT PREPARED 'x'");
wait_equal($node, $redis, 'equal once it is committed');
like($redis->command('GET', 'sess:2'), qr/phases/, 'by what was prepared');

$node->stop;
done_testing();
