# Where workers run: the databases of session_store.databases, while they exist and nobody drops, renames or copies them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Workers;

my $node = start_cluster('databases', 'session_store.databases = \'postgres, later , "With, comma"\'');
my $first = wait_for_worker($node, 'supervisor', 'postgres');
ok($first, 'a supervisor runs in a listed database without the extension');
ok(wait_for_worker($node, 'launcher'), 'the launcher is in no database');

# A database that does not exist yet.
$node->safe_psql('postgres', 'CREATE DATABASE later');
ok(wait_for_worker($node, 'supervisor', 'later'), 'a listed database gets its supervisor when it is created');
$node->safe_psql('postgres', 'CREATE DATABASE "With, comma"');
ok(wait_for_worker($node, 'supervisor', 'With, comma'), 'a quoted name may hold a comma');
is(log_matches($node, 'FATAL'), 0, 'waiting for a database says nothing');

# Reload.
$node->safe_psql('postgres', 'CREATE DATABASE "Unlisted"');
is(worker_pid($node, 'supervisor', 'Unlisted'), '', 'no supervisor in a database that is not listed');
set_conf($node, 'session_store.databases', 'postgres, later, Unlisted');
ok(wait_for_worker($node, 'supervisor', 'Unlisted'), 'reload adds a database; names keep their case');
ok(wait_for_no_worker($node, 'With, comma'), 'reload takes a database away');
is(worker_pid($node, 'supervisor', 'postgres'), $first, 'others are left alone');
my ($stdout, $stderr);
$node->psql('postgres', 'ALTER SYSTEM SET session_store.databases = \'"open\'', stderr => \$stderr);
like($stderr, qr/double quote is not closed/, 'a list with an open quote is refused');

# Commands that need a database for themselves.
my $other = wait_for_worker($node, 'supervisor', 'later');
is($node->psql('postgres', 'CREATE DATABASE copy TEMPLATE later'), 0, 'a database with workers can be copied');
$other = wait_for_worker($node, 'supervisor', 'later', $other);
ok($other, 'its workers come back');
is($node->psql('postgres', 'ALTER DATABASE later RENAME TO renamed'), 0, 'a database with workers can be renamed');
is(worker_pid($node, 'supervisor', 'renamed'), '', 'its new name is not listed');
is($node->psql('postgres', 'ALTER DATABASE renamed RENAME TO later'), 0, 'and back');
$other = wait_for_worker($node, 'supervisor', 'later');

my $place = PostgreSQL::Test::Utils::tempdir();
$node->safe_psql('postgres', "CREATE TABLESPACE place LOCATION '$place'");
is($node->psql('postgres', 'ALTER DATABASE later SET TABLESPACE place'), 0, 'a database with workers can be moved');
$other = wait_for_worker($node, 'supervisor', 'later', $other);

# A command that fails, or is rolled back.
my $session = $node->background_psql('later');
$session->query_safe('SELECT 1');
isnt($node->psql('postgres', 'DROP DATABASE later', stderr => \$stderr), 0, 'DROP DATABASE fails for a session of a user');
like($stderr, qr/is being accessed by other users.*There is 1 other session/s, 'and only for that one');
$session->quit;
ok(wait_for_worker($node, 'supervisor', 'later', $other), 'after it failed the workers come back');
$node->safe_psql('postgres', 'BEGIN; ALTER DATABASE later RENAME TO gone; ROLLBACK');
ok(wait_for_worker($node, 'supervisor', 'later'), 'after a rollback the workers come back');
my $renamer = $node->background_psql('postgres');
$renamer->query_safe('BEGIN; ALTER DATABASE later RENAME TO gone');
is(worker_pid($node, 'supervisor', 'later'), '', 'no worker while the transaction is open');
$renamer->query_safe('ROLLBACK');
ok(wait_for_worker($node, 'supervisor', 'later'), 'and one after it');
$renamer->quit;

# Who may not drop a database does not stop its workers either.
$other = worker_pid($node, 'supervisor', 'later');
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN');
for my $statement ('DROP DATABASE later', 'ALTER DATABASE later RENAME TO mine', 'CREATE DATABASE mine TEMPLATE later')
{
	isnt($node->psql('postgres', "SET ROLE nobody; $statement", on_error_stop => 1), 0, "refused: $statement");
}
is(worker_pid($node, 'supervisor', 'later'), $other, 'and the worker has not noticed');

# A database that allows no connections.
$node->safe_psql('postgres', 'ALTER DATABASE later ALLOW_CONNECTIONS false');
ok(wait_for_no_worker($node, 'later'), 'no worker where no connection is allowed');
$node->safe_psql('postgres', 'ALTER DATABASE later ALLOW_CONNECTIONS true');
ok(wait_for_worker($node, 'supervisor', 'later'), 'and one where it is allowed again');

my $started = time;
is($node->psql('postgres', 'DROP DATABASE later'), 0, 'a database with workers can be dropped');
cmp_ok(time - $started, '<', 4, 'without waiting for them');
is(worker_pid($node, 'supervisor', 'later'), '', 'nothing is left in it');
is(log_matches($node, 'does not exist; it seems|FATAL:.*database "\w+" does not exist'), 0, 'no worker looked for a database that is gone');

# A template that many are made from.
set_conf($node, 'session_store.databases', 'postgres, template1, copy');
ok(wait_for_worker($node, 'supervisor', 'template1'), 'even template1 may be listed');
is($node->psql('postgres', "CREATE DATABASE from_default_$_"), 0, "database $_ is made from it") for 1 .. 3;
ok(wait_for_worker($node, 'supervisor', 'template1'), 'and its worker comes back');
wait_for_worker($node, 'supervisor', 'copy');
is($node->psql('postgres', 'DROP DATABASE copy WITH (FORCE)'), 0, 'DROP DATABASE WITH (FORCE) works as well');

$node->stop;
done_testing();
