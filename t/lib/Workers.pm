# What the tests of the workers share: a cluster with the library preloaded, and waiting for workers.
package Workers;

use strict;
use warnings;
use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(start_cluster set_conf worker_pid wait_for_worker wait_for_no_worker wait_until_true log_matches);

# A started cluster whose workers look around every 50 ms, with further lines of postgresql.conf.
sub start_cluster
{
	my ($name, @lines) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(allows_streaming => 1);
	$node->append_conf('postgresql.conf', join("\n",
			"shared_preload_libraries = 'session_store'", "session_store.naptime = '50ms'", @lines, ''));
	$node->start;
	return $node;
}

# Changes a setting and reloads. The test goes on at once: it has to poll for the effect.
sub set_conf
{
	my ($node, $name, $value) = @_;
	$node->adjust_conf('postgresql.conf', $name, "'$value'");
	$node->reload;
}

# Pid of the worker of that kind in that database, or ''.
sub worker_pid
{
	my ($node, $kind, $database) = @_;
	my $where = defined $database ? "datname = '$database'" : 'datname IS NULL';
	return $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'session_store $kind' AND $where");
}

# True once the query gives true.
sub wait_until_true
{
	my ($node, $query, $database) = @_;
	return $node->poll_query_until($database // 'postgres', $query);
}

# The pid of the one worker of that kind in that database, waited for; $but is not the one.
sub wait_for_worker
{
	my ($node, $kind, $database, $but) = @_;
	my $where = defined $database ? "datname = '$database'" : 'datname IS NULL';
	$but = -1 if !defined $but || $but eq '';
	wait_until_true($node,
		"SELECT count(*) = 1 AND bool_and(pid <> $but) FROM pg_stat_activity WHERE backend_type = 'session_store $kind' AND $where")
		or die "no session_store $kind in " . ($database // 'no database');
	return worker_pid($node, $kind, $database);
}

sub wait_for_no_worker
{
	my ($node, $database) = @_;
	return wait_until_true($node,
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'session_store%' AND datname = '$database'");
}

# How many times the server's log has matched.
sub log_matches
{
	my ($node, $pattern) = @_;
	my $count = () = slurp_file($node->logfile) =~ /$pattern/g;
	return $count;
}

1;
