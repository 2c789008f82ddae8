# check_redis says what would go wrong with a Redis, and changes nothing in it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;

my $redis = RedisServer->new;
my $node = PostgreSQL::Test::Cluster->new('check');
$node->init;
$node->start;
my $path = $redis->socket_path;
$node->safe_psql('postgres', qq{
	CREATE EXTENSION session_store;
	CREATE SERVER r FOREIGN DATA WRAPPER session_store_redis OPTIONS (path '$path', command_timeout '60s');
	CREATE USER MAPPING FOR CURRENT_USER SERVER r;
	SELECT session_store.create_store();
});

my ($result, $out, $error) = $node->psql('postgres', "SELECT * FROM session_store.check_redis('sessions')");
like($error, qr/has no redis_server.*HINT/s, 'a store without a server says so');
$node->safe_psql('postgres', "UPDATE session_store.stores SET redis_server = 'r'");

# {item => [ok, detail]}
sub check
{
	my $rows = $node->safe_psql('postgres', "SELECT item, ok, detail FROM session_store.check_redis('sessions')");
	return { map { my ($item, $ok, $detail) = split /\|/, $_, 3; ($item => [ $ok, $detail ]) } split /\n/, $rows };
}

sub item_is
{
	my ($found, $item, $ok, $pattern, $name) = @_;
	my ($is, $detail) = @{ $found->{$item} // [ '', 'no such item' ] };
	ok($is eq $ok && $detail =~ $pattern, $name) or diag("$item: $is, $detail");
}

# A Redis as it comes.
$redis->commands(map { ['SET', "sess:$_", '{}'] } 1 .. 50);
$redis->command('SET', 'other', 1);
my $found = check();
item_is($found, 'connection', 't', qr/redis\.sock/, 'reached');
item_is($found, 'version', 't', qr/^\d+\.\d+/, 'its version');
item_is($found, 'role', 't', qr/^primary$/, 'its role');
item_is($found, 'state', 't', qr/^ready$/, 'its state');
item_is($found, "rights to $_", 't', qr/./, "rights to $_") for 'read', 'write', 'the lease';
item_is($found, 'feed', 't', qr/^client tracking$/, 'the feed');
item_is($found, 'eviction policy', 't', qr/^noeviction$/, 'the eviction policy');
item_is($found, 'notifications', 't', qr/would be told from logouts/, 'notifications are not needed then');
item_is($found, 'keys', 't', qr/^51 keys in database 0, 50 under the prefix$/, 'its keys');
item_is($found, 'key types', 't', qr/^all of 50 sampled/, 'their types');
item_is($found, 'tls', 't', qr/unix socket/, 'no TLS over a socket');
item_is($found, 'clock', 't', qr/^Redis is \d+ ms/, 'its clock');
is($redis->command('DBSIZE'), 51, 'nothing was written');

# What a store cannot hold, and a prefix that is not used.
$redis->command('HSET', 'sess:h', 'a', 1);
$redis->command('RPUSH', 'sess:l', 'a');
item_is(check(), 'key types', 'f', qr/^2 of 52 .*hash \(1\) list \(1\).*rejects/, 'keys that cannot be mirrored');
$redis->command('DEL', 'sess:h', 'sess:l');
$node->safe_psql('postgres', "UPDATE session_store.stores SET redis_prefix = 'nobody:'");
item_is(check(), 'keys', 'f', qr/0 under the prefix: is it the right prefix/, 'a prefix that is not used');
$node->safe_psql('postgres', "UPDATE session_store.stores SET redis_prefix = 'sess:'");

# Evictions.
$redis->command('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru');
$found = check();
item_is($found, 'eviction policy', 'f', qr/^allkeys-lru: .*taken as a logout/, 'evictions nobody tells');
item_is($found, 'notifications', 'f', qr/with E and e/, 'say what is missing');
$redis->command('CONFIG', 'SET', 'notify-keyspace-events', 'Ee');
$found = check();
item_is($found, 'eviction policy', 't', qr/^allkeys-lru$/, 'evictions that are told');
item_is($found, 'notifications', 't', qr/evictions are told from logouts/, 'by notifications');
$redis->command('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');

# A full Redis that evicts nothing refuses writes.
$redis->command('CONFIG', 'SET', 'maxmemory', 1);
item_is(check(), 'rights to write', 'f', qr/SET \(Redis is out of memory/, 'no memory');
$redis->command('CONFIG', 'SET', 'maxmemory', 0);

# Rights, as the README gives them, and less. The password is nowhere.
sub with_rights
{
	my (@rights) = @_;
	$redis->command('ACL', 'SETUSER', 'mirror', 'reset', 'on', '>secret-7', @rights);
	$node->safe_psql('postgres', q{
		ALTER USER MAPPING FOR CURRENT_USER SERVER r OPTIONS (ADD username 'mirror', ADD password 'secret-7')})
	  if $node->safe_psql('postgres', "SELECT coalesce(umoptions::text, '') NOT LIKE '%mirror%' FROM pg_user_mappings") eq 't';
	return check();
}
my @reading = qw(&__redis__:invalidate +client|tracking +client|id +client|trackinginfo +subscribe +ping +scan
  +mget +get +getrange +strlen +pexpiretime +pttl +time +type +multi +exec +info);
$found = with_rights('%R~sess:*', @reading);
item_is($found, 'rights to read', 't', qr/./, 'rights to read alone');
item_is($found, 'rights to write', 'f', qr/SET \(no right to it\).*DEL.*EVAL and WATCH/, 'what is missing to write');
item_is($found, 'rights to the lease', 'f', qr/GET \(no right/, 'and for the lease');
item_is($found, 'notifications', 't', qr/cannot be read/, 'notifications that cannot be looked at');
$found = with_rights('%R~sess:*', grep { !/tracking|mget/ } @reading);
item_is($found, 'rights to read', 'f', qr/: MGET \(no right to it\);/, 'one missing right to read');
item_is($found, 'feed', 'f', qr/^comparisons only.*CLIENT TRACKING: no right.*PSUBSCRIBE: no right/, 'no tracking and no notifications');
$redis->command('CONFIG', 'SET', 'notify-keyspace-events', 'Kg$hxeE');
$found = with_rights('~sess:*', '&*', '+@all', '-client|tracking', '-eval', '-evalsha', '~session_store:lease:*');
item_is($found, 'feed', 't', qr/^keyspace notifications.*CLIENT TRACKING: no right/, 'notifications where tracking is refused');
item_is($found, 'rights to write', 't', qr/by WATCH/, 'WATCH where EVAL is refused');
item_is($found, 'rights to the lease', 't', qr/./, 'rights to the lease');
$found = with_rights('~other:*', '+@all', '-info');
item_is($found, 'version', 'f', qr/^INFO is refused/, 'nothing goes without INFO');
ok(!grep({ $_->[1] =~ /secret-7/ } values %$found), 'no password is shown');
$redis->command('ACL', 'SETUSER', 'mirror', '>other', '<secret-7');
item_is(check(), 'connection', 'f', qr/WRONGPASS/, 'a wrong password');
$node->safe_psql('postgres', 'ALTER USER MAPPING FOR CURRENT_USER SERVER r OPTIONS (DROP username, DROP password)');

# A replica.
$redis->command('REPLICAOF', 'localhost', '1');
$found = check();
item_is($found, 'role', 'f', qr/^a replica/, 'a replica');
item_is($found, 'state', 'f', qr/not in sync/, 'without its primary');
$redis->command('REPLICAOF', 'NO', 'ONE');

# Interrupts while Redis does not answer.
$redis->signal('STOP');
($result, $out, $error) = $node->psql('postgres',
	"SET statement_timeout = '300ms'; SELECT * FROM session_store.check_redis('sessions')");
like($error, qr/canceling statement due to statement timeout/, 'statement_timeout ends it');
$redis->signal('CONT');
$redis->stop;
item_is(check(), 'connection', 'f', qr/could not connect to Redis/, 'nobody there');

$node->stop;
done_testing();
