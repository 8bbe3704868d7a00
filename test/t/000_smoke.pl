
# A server with the library preloaded and no streams has one process of the
# engine, the launcher.  CREATE and DROP EXTENSION, restarts and crashes change
# nothing about that and leave nothing behind.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $node = new_node('smoke', extension => 0);

# What an extension can leave in a database, apart from what pg_depend ties to it.
my $leftovers = q(
	SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'stream_engine%'
	UNION ALL
	SELECT 'relation ' || oid::regclass::text FROM pg_class WHERE relname LIKE 'stream_engine%'
	UNION ALL
	SELECT 'function ' || oid::regprocedure::text FROM pg_proc
		WHERE probin LIKE '%stream_engine%' OR (proname IN ('tumble', 'hop', 'cumulate', 'session') AND oid >= 16384)
	UNION ALL
	SELECT 'foreign data wrapper ' || fdwname FROM pg_foreign_data_wrapper
	UNION ALL
	SELECT 'event trigger ' || evtname FROM pg_event_trigger
	UNION ALL
	SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE 'stream_engine%'
	UNION ALL
	SELECT 'replication slot ' || slot_name FROM pg_replication_slots
	UNION ALL
	SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts
	ORDER BY 1);

# The launcher, and it alone, runs: waits for it, then looks at all there are.
sub launcher_only
{
	my ($when) = @_;
	wait_for_processes($node, 1, '%launcher%');
	wait_for_processes($node, 1);
	is(scalar(engine_processes($node)), 1, "the launcher alone runs $when");
	return;
}

is($node->safe_psql('postgres', 'SHOW shared_preload_libraries'),
	'stream_engine', 'the server starts with the library preloaded');
launcher_only('before there is an extension');
is($node->safe_psql('postgres', $leftovers),
	'', 'the preloaded library alone makes no objects');

$node->safe_psql('postgres', 'CREATE EXTENSION stream_engine');
is( $node->safe_psql(
		'postgres',
		q(SELECT extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'stream_engine')
		  FROM pg_extension WHERE extname = 'stream_engine')),
	't',
	'CREATE EXTENSION installs the default version');
launcher_only('with an extension and no streams');

my $objects = $node->safe_psql('postgres', $leftovers);
isnt($objects, '', 'the extension has objects');
$node->safe_psql('postgres', 'DROP EXTENSION stream_engine');
is($node->safe_psql('postgres', $leftovers),
	'', 'DROP EXTENSION leaves no object behind');
launcher_only('after DROP EXTENSION');

$node->safe_psql('postgres', 'CREATE EXTENSION stream_engine');
is($node->safe_psql('postgres', $leftovers),
	$objects, 'a second CREATE EXTENSION makes the same objects');

# A rolled back one leaves as little.
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other',
	'BEGIN; CREATE EXTENSION stream_engine; ROLLBACK');
is($node->safe_psql('other', $leftovers),
	'', 'a rolled back CREATE EXTENSION leaves nothing');

# No process of the engine stays connected to a database without streams.
$node->safe_psql('other', 'CREATE EXTENSION stream_engine');
$node->safe_psql('postgres', 'CREATE DATABASE clone TEMPLATE other');
is($node->safe_psql('clone', $leftovers), $objects,
	'a database with the extension serves as a template');
$node->safe_psql('postgres', "DROP DATABASE $_") foreach qw(clone other);
launcher_only('after databases with the extension came and went');

# The postmaster takes its file away, for which stop waits, shortly before it ends.
$node->stop('fast');
wait_until(
	$node,
	sub { !server_pids($node) },
	'the stopped server has no process');
pass('a stopped server leaves no process behind');
$node->start;
launcher_only('after a restart');

my $position = log_position($node);
my $killed   = kill9_worker($node, '%launcher%');
like(
	log_since($node, $position),
	qr/\(PID $killed\) was terminated by signal 9/,
	'the killed launcher brought the server down');
launcher_only('after a crash of the launcher');

kill9_server($node);
launcher_only('after kill -9 of the postmaster');

$node->stop('immediate');
$node->start;
launcher_only('after an immediate stop');

is($node->safe_psql('postgres', $leftovers),
	$objects, 'crashes took nothing away and left nothing behind');
$node->safe_psql('postgres', 'DROP EXTENSION stream_engine');
is($node->safe_psql('postgres', $leftovers),
	'', 'DROP EXTENSION after crashes leaves no object behind');

my @errors = grep { /PANIC|TRAP|signal (?!9:)|unrecognized configuration/ }
  split /\n/, log_since($node, 0);
is("@errors", '', 'the log has no crash but those that were made');

$node->stop('fast');
done_testing();
