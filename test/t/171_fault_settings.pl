
# Settings of a database or role, publications, and other databases do not reach into the
# engine's workers: none stops a stream, makes it wrong or hangs it.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

my $node = new_node(
	'main',
	allows_streaming => 'logical',
	conf             => q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 20ms
));

# A database with a stream over a table, a tumbling, a changing and a total query, and a
# procedure that feeds one more window.
my $definitions = q(
	CREATE TABLE log (partition int, "offset" bigint GENERATED ALWAYS AS IDENTITY (MINVALUE 0 START 0), timestamp timestamptz,
		key bytea, value bytea, PRIMARY KEY (partition, "offset"));
	CREATE SERVER tables FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.log', partitions '1');
	CREATE SEQUENCE clock MINVALUE 0;
	CREATE PROCEDURE feed() LANGUAGE plpgsql AS $$
	DECLARE
		w int := nextval('clock');
	BEGIN
		INSERT INTO log (partition, timestamp, value)
		SELECT 0, now(), convert_to(json_build_object('k', i % 2, 'v', i, 'd', '2025-02-03',
			'ts', timestamptz '2025-01-01 00:00Z' + w * interval '10 seconds' + i * interval '1 second')::text, 'UTF8')
		FROM generate_series(1, 8) AS i;
		-- one late, one bad
		INSERT INTO log (partition, timestamp, value) VALUES
			(0, now(), '{"ts": "2024-01-01T00:00:00Z", "k": 1}'), (0, now(), '{"ts": "2025-01-01T00:00:00Z", "k": "x"}');
	END $$;
	SELECT stream_engine.create_stream('s', server => 'tables', topic => 'log', event_time => 'ts',
		columns => 'k int, v int, d date, ts timestamptz', watermark_delay => '1 second', idle_timeout => '1 hour', include => '{}');
	SELECT stream_engine.create_query('q', $$ SELECT k, sum(v) AS total, max(d::text) AS d, count(*) AS n FROM s GROUP BY tumble(ts, '10 seconds'), k $$);
	SELECT stream_engine.create_query('c', $$ SELECT k, sum(v) AS total FROM s GROUP BY tumble(ts, '20 seconds'), k $$,
		emit => 'changes', emit_interval => '10 ms', allowed_lateness => '10 seconds');
	SELECT stream_engine.create_query('t', $$ SELECT k, count(*) AS n FROM s GROUP BY k $$, trigger_interval => '10 ms'));
$node->safe_psql('postgres', $definitions);

sub goes_on
{
	my ($when, $dbname) = @_;
	$dbname //= 'postgres';
	# What binds the workers need not bind the test.
	my $own = q(SET default_transaction_read_only = off; SET default_transaction_isolation = 'read committed';
		SET search_path = public; SET client_min_messages = warning; SET DateStyle = 'ISO';);
	# A SET of these could take too long already.
	local $ENV{PGOPTIONS} = '-c statement_timeout=0 -c lock_timeout=0';

	$node->safe_psql($dbname, "$own CALL feed()");
	foreach my $query (qw(q c t))
	{
		my ($rc, $out, $err) = $node->psql($dbname, "$own CALL stream_engine.wait('$query', '1 minute')");
		is($err, '', "$when: $query has read all");
		is($node->safe_psql($dbname, "$own SELECT state, error FROM stream_engine.queries WHERE name = '$query'::regclass"), 'running|', "$when: $query runs");
		next if $query eq 't';
		is($node->safe_psql($dbname, "$own SELECT * FROM stream_engine.verify('$query')"), '', "$when: $query is right");
	}
	is($node->safe_psql($dbname, "$own SELECT count(*) FROM q WHERE d <> '2025-02-03'"), '0', "$when: the settings of the definition hold");
	return;
}

goes_on('at rest');

# ---------------------------------------------------------------------------
# Settings of the database
# ---------------------------------------------------------------------------

# Those of a line are tried together.
my @settings = (
	[ "default_transaction_isolation = 'serializable'", "statement_timeout = '1ms'" ],
	[ 'default_transaction_read_only = on', "idle_in_transaction_session_timeout = '1ms'" ],
	[ "lock_timeout = '1ms'", 'default_transaction_deferrable = on' ],
	[ 'session_replication_role = replica', 'row_security = off', 'exit_on_error = on' ],
	[
		'search_path = nowhere', "DateStyle = 'German'", "TimeZone = 'Asia/Kathmandu'",
		"IntervalStyle = 'sql_standard'", "bytea_output = 'escape'", 'extra_float_digits = -5',
		'standard_conforming_strings = off', 'transform_null_equals = on'
	],
	[ 'synchronous_commit = off', 'enable_indexscan = off', "work_mem = '64kB'", "client_encoding = 'LATIN1'" ]);
my $superuser = $node->safe_psql('postgres', 'SELECT current_user');
foreach my $setting (@settings)
{
	my @names = map { /^(\w+)/ } @$setting;
	my $places = sub { map { ("ALTER DATABASE postgres $_", "ALTER ROLE \"$superuser\" IN DATABASE postgres $_") } @_ };

	$node->safe_psql('template1', join(';', $places->(map { "SET $_" } @$setting)));
	# New workers have the new defaults.
	$node->safe_psql('template1', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE backend_type LIKE 'stream_engine %' AND datname = 'postgres'));
	goes_on(join(', ', @$setting));
	$node->safe_psql('template1', join(';', $places->(map { "RESET $_" } @names)));
}
$node->safe_psql('template1', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity
	WHERE backend_type LIKE 'stream_engine %' AND datname = 'postgres'));
goes_on('all settings are gone');

# Life cycle calls of a session that is serializable by default: they do what they say, or
# raise a serialization failure, which is to be tried again.
$node->safe_psql('template1', "ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'");
foreach my $sql (
	"SELECT stream_engine.pause('q')", "SELECT stream_engine.resume('q')", "SELECT stream_engine.pause('s')",
	"SELECT stream_engine.resume('s')", "SELECT stream_engine.alter_stream('s', idle_timeout => '2 hours')",
	"SELECT stream_engine.alter_query('c', emit_interval => '20 ms')",
	q(SELECT stream_engine.create_query('more', 'SELECT count(*) AS n FROM s GROUP BY tumble(ts, ''10 seconds'')')),
	"CALL stream_engine.wait('more', '1 minute')",
	"SELECT stream_engine.drop_query('more')")
{
	my $wrong = '';
	wait_until(
		$node,
		sub {
			my ($rc, $out, $err) = $node->psql('postgres', $sql);
			return 1 if $rc == 0;
			$wrong .= $err unless $err =~ /could not serialize/;
			return $wrong ne '';
		},
		"$sql succeeds");
	is($wrong, '', "serializable: $sql");
}
$node->safe_psql('template1', 'ALTER DATABASE postgres RESET default_transaction_isolation');
goes_on('life in serializable transactions');

# ---------------------------------------------------------------------------
# Publications
# ---------------------------------------------------------------------------

$node->safe_psql('postgres', "CREATE PUBLICATION everything FOR ALL TABLES; SELECT pg_create_logical_replication_slot('all', 'pgoutput')");
goes_on('all tables are published');
is($node->safe_psql('postgres', q(
	SELECT count(*) FROM pg_class c WHERE relnamespace = 'stream_engine'::regnamespace AND relkind IN ('r', 'p') AND relpersistence = 'p'
		AND relreplident <> 'f' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))), '0',
	'each of the engine\'s tables can be updated');
$node->safe_psql('postgres', q(
	SELECT stream_engine.retry_late('c'); SELECT stream_engine.retry_dead_letters('s');
	SELECT stream_engine.advance_watermark('s', '2025-03-01 00:00Z');
	SELECT stream_engine.pause('q'); SELECT stream_engine.resume('q')));
$node->safe_psql('postgres', "CALL stream_engine.wait('s', '1 minute')");
is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT state, ',') FROM stream_engine.queries"), 'running', 'all tables are published: replays run');
$node->safe_psql('postgres', "SELECT stream_engine.purge_dead_letters('s', now()); SELECT stream_engine.create_query('more', 'SELECT count(*) AS n FROM s GROUP BY tumble(ts, ''10 seconds'')'); SELECT stream_engine.drop_query('more')");
pass('all tables are published: queries come and go');
is($node->safe_psql('postgres', "SELECT count(*) > 0 FROM pg_logical_slot_peek_binary_changes('all', NULL, NULL, 'proto_version', '1', 'publication_names', 'everything')"), 't', 'and the changes can be decoded');
$node->safe_psql('postgres', "SELECT pg_drop_replication_slot('all'); DROP PUBLICATION everything");

# ---------------------------------------------------------------------------
# Several databases
# ---------------------------------------------------------------------------

$node->safe_psql('postgres', 'CREATE DATABASE "second Base"; CREATE DATABASE empty');
$node->safe_psql('empty', 'CREATE EXTENSION stream_engine');
$node->safe_psql('second Base', "CREATE EXTENSION stream_engine; $definitions");
goes_on('two databases', 'second Base');
is($node->safe_psql('second Base', 'SELECT count(DISTINCT database) FROM stream_engine.stat_workers WHERE kind = \'manager\' AND pid IS NOT NULL'), '2', 'each has a manager, that without a stream has none');
is($node->safe_psql('second Base', 'SELECT count(*) FROM stream_engine.queries'), '3', 'a database shows its own queries');
$node->safe_psql('template1', 'ALTER DATABASE "second Base" RENAME TO second');
goes_on('a database was renamed', 'second');
$node->safe_psql('template1', "SET allow_in_place_tablespaces = on; CREATE TABLESPACE elsewhere LOCATION ''");
$node->safe_psql('template1', "ALTER DATABASE second SET TABLESPACE $_") foreach qw(elsewhere pg_default);
goes_on('a database was moved', 'second');
$node->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE second');
is($node->safe_psql('copy', 'SELECT DISTINCT state FROM stream_engine.queries'), 'restored', 'a copy waits for resume()');
$node->safe_psql('copy', "SELECT stream_engine.resume('s', start => 'latest')");
is($node->safe_psql('copy', 'SELECT DISTINCT state FROM stream_engine.queries'), 'running', 'and runs then');
goes_on('a database was a template', 'second');
$node->safe_psql('copy', "CALL feed(); CALL stream_engine.wait('q', '1 minute')");
$node->safe_psql('copy', 'DROP EXTENSION stream_engine CASCADE');
wait_for($node, q(SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'copy' AND backend_type LIKE 'stream_engine%'));
$node->safe_psql('template1', 'DROP DATABASE copy');
$node->safe_psql('template1', 'DROP DATABASE second WITH (FORCE); DROP TABLESPACE elsewhere');
$node->safe_psql('template1', 'ALTER DATABASE empty ALLOW_CONNECTIONS off; DROP DATABASE empty');
wait_for($node, q(SELECT count(*) = 0 FROM stream_engine.stat_workers WHERE database IS DISTINCT FROM 'postgres' AND kind <> 'launcher'));
goes_on('the others were dropped');

unlike(log_since($node, 0), qr/PANIC|TRAP|was terminated by signal/, 'the log has no crash');
$node->safe_psql('postgres', 'DROP EXTENSION stream_engine CASCADE');
wait_for_processes($node, 0, '%reader%');
wait_for_processes($node, 0, '%manager%');
$node->stop('fast');
done_testing();
