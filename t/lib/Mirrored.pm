# What the tests of the mirror share: a mirrored store, waiting for it, and comparing both sides.
package Mirrored;

use strict;
use warnings;
use Exporter 'import';
use PostgreSQL::Test::Utils;
use RedisServer;
use Test::More;
use Time::HiRes qw(sleep time);
use Workers;

our @EXPORT = qw(start_mirrored_cluster create_mirrored_store wait_in_sync wait_for_status
  wait_equal differences stat_mirror mirror_pid stop_process);

my $kTimeout = $PostgreSQL::Test::Utils::timeout_default;

# A cluster with the extension in its database postgres.
sub start_mirrored_cluster
{
	my ($name, @lines) = @_;
	my $node = start_cluster($name, "session_store.databases = 'postgres'", @lines);
	$node->safe_psql('postgres', 'CREATE EXTENSION session_store');
	return $node;
}

# A store in phase dual_redis_primary. Options: store, payload, interval (of its partitions, default none), prefix,
# server (options of the foreign server, default its socket), mapping (options of the user mapping).
sub create_mirrored_store
{
	my ($node, $redis, %options) = @_;
	my $store = $options{store} // 'sessions';
	my $payload = $options{payload} // 'jsonb';
	my $interval = $options{interval} ? "'$options{interval}'" : 'NULL';
	my $prefix = $options{prefix} // 'sess:';
	my $server = $options{server} // sprintf "path '%s'", $redis->socket_path;
	my $mapping =
	  $options{mapping} ? "CREATE USER MAPPING FOR CURRENT_USER SERVER ${store}_redis OPTIONS ($options{mapping})" : '';
	$node->safe_psql('postgres', qq{
		CREATE SERVER ${store}_redis FOREIGN DATA WRAPPER session_store_redis OPTIONS ($server);
		$mapping;
		SELECT session_store.create_store('$store', '$payload', $interval);
		UPDATE session_store.stores SET redis_server = '${store}_redis', redis_prefix = '$prefix' WHERE store = '$store';
		SELECT session_store.set_phase('$store', 'dual_redis_primary');
	});
}

# True once the status of the store fits the pattern.
sub wait_for_status
{
	my ($node, $pattern, $store) = @_;
	$store //= 'sessions';
	$pattern =~ s/'/''/g;
	return $node->poll_query_until('postgres',
		"SELECT mirror ~ '$pattern' FROM session_store.status WHERE store = '$store'");
}

# True once the mirror is in sync and has nothing left to apply.
sub wait_in_sync
{
	my ($node, $store) = @_;
	$store //= 'sessions';
	return $node->poll_query_until('postgres',
		"SELECT mirror = 'in sync' AND lag_keys = 0 FROM session_store.status WHERE store = '$store'");
}

# One column of stat_mirror.
sub stat_mirror
{
	my ($node, $column, $store) = @_;
	$store //= 'sessions';
	return $node->safe_psql('postgres', "SELECT $column FROM session_store.stat_mirror WHERE store = '$store'");
}

sub mirror_pid { my ($node, $store) = @_; return stat_mirror($node, 'pid', $store) }

# Stops a process of the server, but not while it holds what a session's write waits for. The write is of the sid "stopped".
sub stop_process
{
	my ($node, $pid) = @_;
	for (my $deadline = time + $kTimeout; time < $deadline;)
	{
		kill 'STOP', $pid;
		my $timed_out;
		$node->psql('postgres', "SELECT session_store.upsert('stopped', '{}', ttl => '1 hour')",
			timeout => 10, timed_out => \$timed_out);
		return if !$timed_out;
		kill 'CONT', $pid;
	}
	die "process $pid cannot be stopped without holding up others";
}

sub copy_text
{
	my ($value) = @_;
	return '\\N' unless defined $value;
	$value =~ s/\\/\\\\/g;
	$value =~ s/\n/\\n/g;
	$value =~ s/\t/\\t/g;
	$value =~ s/\r/\\r/g;
	return $value;
}

# The sids that are not equal on both sides, each with what is wrong: existence, payload by value,
# expiry to the millisecond. Rejected keys are left out. For jsonb stores.
sub differences
{
	my ($node, $redis, %options) = @_;
	my $store = $options{store} // 'sessions';
	my $prefix = $options{prefix} // 'sess:';
	my %rejected = map { (pack('H*', $_) => 1) } split /\n/,
	  $node->safe_psql('postgres', "SELECT encode(redis_key, 'hex') FROM session_store.rejects WHERE store = '$store'");
	my @keys = grep { !$rejected{$_} } $redis->keys_under($prefix);
	my $rows = '';
	for my $key (@keys)
	{
		$redis->send_commands(['GET', $key], ['PEXPIRETIME', $key]);
		my ($value, $expires) = ($redis->read_reply, $redis->read_reply);
		next if !defined $value;
		$rows .= join("\t", map { copy_text($_) } substr($key, length $prefix), $value, $expires) . "\n";
	}
	return $node->safe_psql('postgres', qq{
		CREATE TEMP TABLE other (sid text COLLATE "C", sess jsonb, expires bigint);
		COPY other FROM stdin;
$rows\\.
		SELECT coalesce(o.sid, s.sid) || ': ' || CASE
				WHEN s.sid IS NULL THEN 'missing in PostgreSQL'
				WHEN o.sid IS NULL THEN 'missing in Redis'
				WHEN o.sess <> s.sess THEN 'payload'
				ELSE 'expiry' END
		FROM other o
		FULL JOIN (SELECT * FROM "$store" WHERE expire > now()) s ON s.sid = o.sid
		WHERE o.sid IS NULL OR s.sid IS NULL OR o.sess <> s.sess
			OR s.expire <> CASE WHEN o.expires < 0 THEN 'infinity' ELSE to_timestamp(o.expires / 1000.0)::timestamptz(3) END
		ORDER BY 1 LIMIT 20});
}

# Passes once both sides are equal while nobody writes.
sub wait_equal
{
	my ($node, $redis, $name, %options) = @_;
	my $deadline = time + $kTimeout;
	my $found;
	do
	{
		wait_in_sync($node, $options{store}) or last;
		$found = differences($node, $redis, %options);
		sleep 0.1 if $found ne '';
	} while ($found ne '' && time < $deadline);
	return is($found, '', $name);
}

1;
