# A Redis that answers with anything: no memory grows, nothing is deleted, and no process ends.
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
use Workers;

my $redis = RedisServer->new;
my $proxy = RedisProxy->new($redis);
my $node = start_mirrored_cluster('hostile');
create_mirrored_store($node, $redis, server => $proxy->server);
$redis->commands(map { ['SET', "sess:$_", qq({"n": $_}), 'EX', 1000] } 1 .. 500);
wait_equal($node, $redis, 'equal before');
$node->safe_psql('postgres', q{
	CREATE TABLE deleted (sid text);
	CREATE FUNCTION note_deleted() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN INSERT INTO public.deleted VALUES (OLD.sid); RETURN OLD; END';
	CREATE TRIGGER note_deleted AFTER DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION note_deleted();
});

my $pid = mirror_pid($node);
my $peak = 0;
for my $case ([ 'garble', 10 ], [ 'flood', 1 ])
{
	my ($how, $times) = @$case;
	my $reconnects = stat_mirror($node, 'reconnects');
	my $deadline = time + 2 * $PostgreSQL::Test::Utils::timeout_default;
	$proxy->tell($how);
	my $round = 0;
	while (stat_mirror($node, 'reconnects') < $reconnects + $times && time < $deadline)
	{
		$round++;
		$redis->command('SET', 'sess:' . ($round % 500), qq({"$how": $round}), 'EX', 1000);
		my ($memory) = slurp_file("/proc/$pid/status") =~ /RssAnon:\s+(\d+) kB/;
		$peak = $memory if $memory > $peak;
		sleep 0.02;
	}
	cmp_ok(stat_mirror($node, 'reconnects'), '>=', $reconnects + $times, "$how: the mirror connects again and again");
	$proxy->tell('pass');
	$proxy->tell('cut');
	wait_equal($node, $redis, "$how: equal once Redis answers rightly");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM deleted'), 0, "$how: nothing was deleted");
}
is(mirror_pid($node), $pid, 'the mirror is the same process');
cmp_ok($peak, '<', 256 * 1024, 'its memory stayed bounded');
is(log_matches($node, 'reinitializing'), 0, 'and no other has ended');

$node->stop;
done_testing();
