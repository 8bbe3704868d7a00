
# Whatever way a stream or query ends, by the engine's functions or by plain DROPs,
# nothing of it is left: no worker, no row in the engine's tables, no relation.
# Renames change nothing.  A paused query keeps its place, and what failed goes on
# where it stopped.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $node = new_node('main', conf => q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 20ms
));
my $mock      = mockd();
my $bootstrap = $mock->bootstrap;
$mock->create('t', 2);
$node->safe_psql('postgres', qq(
	CREATE SERVER kafka FOREIGN DATA WRAPPER stream_engine_kafka
		OPTIONS (bootstrap_servers '$bootstrap', fetch_wait_max_ms '50')));
my $objects = objects();

# Records of one more window of ten seconds, which closes the one before.
my $windows = 0;
sub produce_window
{
	foreach my $partition (0, 1)
	{
		$mock->produce('t', $partition,
			map { sprintf('{"k": "%s", "v": %d, "ts": "2025-01-01T%02d:%02d:%02dZ"}', (qw(a b))[ $_ % 2 ], $_,
				$windows / 360, $windows / 6 % 60, $windows % 6 * 10 + $_) } 1 .. 8);
	}
	$windows++;
	return;
}

sub create_stream
{
	my ($name) = @_;
	$node->safe_psql('postgres', qq(
		SELECT stream_engine.create_stream('$name', server => 'kafka', topic => 't',
			columns => 'k text, v int, ts timestamptz', event_time => 'ts', watermark_delay => '1 second',
			idle_timeout => '1 hour')));
	return;
}

sub create_query
{
	my ($name, $stream, $more) = @_;
	$more //= '';
	$node->safe_psql('postgres', qq(
		SELECT stream_engine.create_query('$name', \$\$ SELECT k, sum(v) AS total, count(*) AS n FROM $stream
			GROUP BY tumble(ts, '10 seconds'), k \$\$$more)));
	return;
}

sub wait_for_query
{
	my ($name) = @_;
	$node->safe_psql('postgres', "CALL stream_engine.wait('$name', '1 minute')");
	return;
}

# All closed windows are there, exactly.
sub is_complete
{
	my ($name, $when) = @_;
	wait_for_query($name);
	is($node->safe_psql('postgres', "SELECT count(*), sum(n), min(n), max(n), count(DISTINCT (window_start, k)) FROM $name"),
		join('|', ($windows - 1) * 2, ($windows - 1) * 16, 8, 8, ($windows - 1) * 2), "$when: results are complete");
	is($node->safe_psql('postgres', "SELECT count(*) FROM stream_engine.verify('$name')"), '0', "$when: and verified");
	return;
}

# Relations outside of the system's schemas, and event triggers.
sub objects
{
	return $node->safe_psql('postgres', q(
		SELECT c.oid::regclass || ' ' || c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema' ORDER BY 1));
}

# Nothing is left but what the names say.
sub nothing_is_left
{
	my ($when, @but) = @_;
	my $rows = $node->safe_psql('postgres', q(
		SELECT string_agg(format('SELECT %L AS t, count(*) FROM %s', relname, oid::regclass), ' UNION ALL ')
		FROM pg_class WHERE relnamespace = 'stream_engine'::regnamespace AND relkind = 'r' AND relname <> 'state_segment'));

	wait_for_processes($node, 0, '%reader%');
	is($node->safe_psql('postgres', "SELECT * FROM ($rows) x WHERE count > 0 ORDER BY 1"), '', "$when: no rows are left");
	is(join("\n", sort split(/\n/, objects())), join("\n", sort split(/\n/, $objects), @but), "$when: no relations are left");
	wait_for_processes($node, 0, '%manager%');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM stream_engine.stat_workers WHERE kind = \'reader\''), '0', "$when: no workers are left");
	return;
}

# ---------------------------------------------------------------------------
# Pause and resume
# ---------------------------------------------------------------------------

create_stream('s');
create_query('q', 's');
create_query('p', 's', ', paused => true');
produce_window() foreach 1 .. 3;
is_complete('q', 'running');
is($node->safe_psql('postgres', 'SELECT count(*) FROM p'), '0', 'a query that is created paused does nothing');

$node->safe_psql('postgres', "SELECT stream_engine.pause('q')");
wait_for_processes($node, 1, '%reader%');
produce_window() foreach 1 .. 2;
wait_for_query('s');
is($node->safe_psql('postgres', 'SELECT count(*) FROM q'), '4', 'a paused query does not go on');
my ($rc, $out, $err) = $node->psql('postgres', "CALL stream_engine.wait('q', '1 minute')");
like($err, qr/q does not go on: it is paused/, 'and wait() says so');
$node->safe_psql('postgres', "SELECT stream_engine.resume('q')");
is_complete('q', 'resumed');
$node->safe_psql('postgres', "SELECT stream_engine.resume('p')");
is_complete('p', 'resumed after its creation');

$node->safe_psql('postgres', "SELECT stream_engine.pause('s')");
wait_for_processes($node, 0, '%reader%');
produce_window();
$node->safe_psql('postgres', "SELECT stream_engine.resume('s')");
is_complete($_, 'resumed stream') foreach qw(q p);

# Definitions that change and change back leave all as it was.
$node->safe_psql('postgres', "BEGIN; SELECT stream_engine.pause('s'); SELECT stream_engine.drop_query('q'); ROLLBACK");
$node->safe_psql('postgres', "BEGIN; DROP FOREIGN TABLE s CASCADE; ROLLBACK");
produce_window();
is_complete($_, 'a rolled back drop') foreach qw(q p);

# ---------------------------------------------------------------------------
# Renames
# ---------------------------------------------------------------------------

$node->safe_psql('postgres', q(
	CREATE SCHEMA "other Schema";
	ALTER FOREIGN TABLE s RENAME TO "my Stream";
	ALTER TABLE q RENAME TO "my Query";
	ALTER VIEW q_batch RENAME TO "my batch";
	ALTER VIEW q_live RENAME TO "my live";
	ALTER FOREIGN TABLE q_open RENAME TO "my open"));
produce_window();
is_complete('"my Query"', 'renamed');
is($node->safe_psql('postgres', 'SELECT count(*) FROM "my live"'), $windows * 2, 'renamed: the live view works');
$node->safe_psql('postgres', q(
	ALTER FOREIGN TABLE "my Stream" SET SCHEMA "other Schema";
	ALTER TABLE "my Query" SET SCHEMA "other Schema"));
produce_window();
is_complete('"other Schema"."my Query"', 'moved');
$node->safe_psql('postgres', q(ALTER SCHEMA "other Schema" RENAME TO "third"));
produce_window();
is_complete('"third"."my Query"', 'in a renamed schema');
is($node->safe_psql('postgres', 'SELECT name FROM stream_engine.queries ORDER BY name::text'), "p\nthird.\"my Query\"", 'the views show the new names');
$node->restart;
produce_window();
is_complete($_, 'restarted') foreach ('third."my Query"', 'p');
is($node->safe_psql('postgres', 'SELECT count(*) FROM third."my Stream"'), $windows * 16, 'the renamed stream is scanned');

# What the query rests on besides.
$node->safe_psql('postgres', q(
	ALTER FUNCTION tumble(timestamptz, interval, timestamptz, text) RENAME TO bucket;
	ALTER FUNCTION bucket(timestamptz, interval, timestamptz, text) SET SCHEMA third;
	ALTER VIEW s_recent RENAME TO "lately"; ALTER VIEW "lately" SET SCHEMA third;
	ALTER INDEX third.q_window_start_window_end_k_idx RENAME TO "my Index";
	ALTER SERVER kafka RENAME TO "my Kafka";
	ALTER TABLE stream_engine.staging_1_0 RENAME TO "my staging"));
like($node->safe_psql('postgres', 'SELECT hint FROM stream_engine.streams'), qr/no rows are staged/, 'staging tables are known by their names');
like($node->safe_psql('postgres', q(SELECT pg_get_viewdef('"my batch"'))), qr/third\.bucket\(/, 'the window has another name');
$node->restart;
produce_window();
is_complete($_, 'everything has another name') foreach ('third."my Query"', 'p');
is($node->safe_psql('postgres', q(SELECT string_agg(state, ',') FROM stream_engine.queries)), 'running,running', 'everything has another name: all run');
$node->safe_psql('postgres', q(
	ALTER FUNCTION third.bucket(timestamptz, interval, timestamptz, text) SET SCHEMA public;
	ALTER FUNCTION bucket(timestamptz, interval, timestamptz, text) RENAME TO tumble;
	ALTER SERVER "my Kafka" RENAME TO kafka;
	ALTER TABLE stream_engine."my staging" RENAME TO staging_1_0));
$node->restart;
produce_window();
wait_for($node, q(SELECT count(*) > 0 FROM third.lately));
is($node->safe_psql('postgres', 'SELECT hint FROM stream_engine.streams'), '', 'and are found again');
# What the engine itself is made of stays where it is.
foreach my $case (
	[ 'ALTER SCHEMA stream_engine RENAME TO other', qr/schema "stream_engine" keeps its name/ ],
	[ 'ALTER EXTENSION stream_engine SET SCHEMA third', qr/does not support SET SCHEMA/ ],
	[ 'ALTER TABLE stream_engine.reader RENAME TO other', qr/relation "reader" keeps its name/ ],
	[ 'ALTER TABLE stream_engine.reader RENAME seq TO other', qr/relation "reader" keeps its name, schema and columns/ ],
	[ 'ALTER TABLE stream_engine.state_log SET SCHEMA third', qr/relation "state_log" keeps its name/ ],
	[ 'ALTER VIEW stream_engine.queries SET SCHEMA third', qr/relation "queries" keeps its name/ ],
	[ 'ALTER SEQUENCE stream_engine.query_id_seq RENAME TO other', qr/relation "query_id_seq" keeps its name/ ])
{
	my ($sql, $error) = @$case;
	($rc, $out, $err) = $node->psql('postgres', $sql);
	like($err, $error, "$sql is refused");
}
produce_window();
is_complete($_, 'renames that were refused') foreach ('third."my Query"', 'p');

$node->safe_psql('postgres', q(SELECT stream_engine.drop_query('p')));
is($node->safe_psql('postgres', 'SELECT count(*) FROM stream_engine.queries'), '1', 'one query is dropped, the other is there');
produce_window();
is_complete('third."my Query"', 'the other was dropped');
$node->safe_psql('postgres', q(SELECT stream_engine.drop_stream('third."my Stream"', true); DROP SCHEMA third));
nothing_is_left('drop_stream with cascade');

# ---------------------------------------------------------------------------
# Ways to end
# ---------------------------------------------------------------------------

my @endings = (
	[ 'drop_query and drop_stream', q(SELECT stream_engine.drop_query('q'); SELECT stream_engine.drop_stream('s')) ],
	[ 'drop_query by its batch view', q(SELECT stream_engine.drop_query('q_batch'); SELECT stream_engine.drop_stream('s')) ],
	[ 'drop_query with keep_results', q(SELECT stream_engine.drop_query('q', keep_results => true); SELECT stream_engine.drop_stream('s')), 'q r', 'q_window_start_window_end_k_idx i' ],
	[ 'DROP TABLE result', 'DROP TABLE q CASCADE; DROP FOREIGN TABLE s' ],
	[ 'DROP VIEW batch', 'DROP VIEW q_batch CASCADE; DROP TABLE q; DROP FOREIGN TABLE s' ],
	[ 'DROP FOREIGN TABLE', 'DROP FOREIGN TABLE s CASCADE; DROP TABLE q' ],
	[ 'DROPs that replicate', 'SET session_replication_role = replica; DROP TABLE q CASCADE; DROP FOREIGN TABLE s' ],
	[ 'DROP SCHEMA of the results', 'DROP SCHEMA x CASCADE; DROP FOREIGN TABLE s' ],
	[ 'DROP SCHEMA', 'DROP SCHEMA x CASCADE', ],
	[ 'DROP OWNED', 'DROP OWNED BY owner CASCADE' ],
	[ 'DROP SERVER', 'DROP SERVER kafka2 CASCADE; DROP TABLE q' ],
	[ 'all in one transaction', 'BEGIN; DROP TABLE q CASCADE; DROP FOREIGN TABLE s; COMMIT' ]);
foreach my $ending (@endings)
{
	my ($name, $sql, @left) = @$ending;

	if ($name eq 'DROP SCHEMA')
	{
		$node->safe_psql('postgres', 'CREATE SCHEMA x');
		create_stream('x.s');
		create_query('x.q', 'x.s');
		wait_for_query('x.q');
	}
	elsif ($name eq 'DROP SCHEMA of the results')
	{
		$node->safe_psql('postgres', 'CREATE SCHEMA x');
		create_stream('s');
		create_query('x.q', 's');
		wait_for_query('x.q');
	}
	elsif ($name eq 'DROP OWNED')
	{
		$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN; GRANT USAGE ON FOREIGN SERVER kafka TO owner; GRANT CREATE ON SCHEMA public TO owner');
		$node->safe_psql('postgres', q(SET ROLE owner;
			SELECT stream_engine.create_stream('s', server => 'kafka', topic => 't', columns => 'k text, v int, ts timestamptz', event_time => 'ts');
			SELECT stream_engine.create_query('q', $$ SELECT k, count(*) FROM s GROUP BY tumble(ts, '10 seconds'), k $$)));
		wait_for_query('q');
	}
	elsif ($name eq 'DROP SERVER')
	{
		$node->safe_psql('postgres', qq(CREATE SERVER kafka2 FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers '$bootstrap');
			SELECT stream_engine.create_stream('s', server => 'kafka2', topic => 't', columns => 'k text, v int, ts timestamptz', event_time => 'ts')));
		create_query('q', 's');
		wait_for_query('q');
	}
	else
	{
		create_stream('s');
		create_query('q', 's');
		is_complete('q', "before $name");
	}
	$node->safe_psql('postgres', $sql);
	nothing_is_left($name, @left);
	$node->safe_psql('postgres', 'DROP TABLE q') if @left;
}
$node->safe_psql('postgres', 'DROP ROLE owner');

# What others need is not dropped with it.
create_stream('s');
create_query('q', 's');
foreach my $sql ('DROP FOREIGN TABLE s', q(SELECT stream_engine.drop_stream('s')), 'DROP SERVER kafka', 'DROP EXTENSION stream_engine')
{
	($rc, $out, $err) = $node->psql('postgres', $sql);
	like($err, qr/depend on it/, "$sql is refused");
}
$node->safe_psql('postgres', 'CREATE VIEW mine AS SELECT * FROM q');
($rc, $out, $err) = $node->psql('postgres', q(SELECT stream_engine.drop_query('q')));
like($err, qr/depend on it/, 'drop_query is refused when something of the user depends on the results');
is_complete('q', 'after refused drops');
$node->safe_psql('postgres', 'DROP VIEW mine');

# A query that a user has spoilt stops alone, and goes on when it is mended.
$node->safe_psql('postgres', 'ALTER TABLE q ADD CONSTRAINT small CHECK (n < 0) NOT VALID');
produce_window();
wait_for($node, q(SELECT state = 'error' AND error LIKE '%violates check constraint "small"%' AND error_sqlstate = '23514' FROM stream_engine.queries));
$node->safe_psql('postgres', q(ALTER TABLE q DROP CONSTRAINT small; SELECT stream_engine.resume('q')));
is_complete('q', 'mended');
# A crash would take results away that the position says are there.
$node->safe_psql('postgres', 'ALTER TABLE q SET UNLOGGED');
produce_window();
wait_for($node, q(SELECT state = 'error' AND error = 'result table "q" is not logged' AND hint LIKE '%SET LOGGED%' FROM stream_engine.queries));
$node->safe_psql('postgres', q(ALTER TABLE q SET LOGGED; SELECT stream_engine.resume('q')));
is_complete('q', 'logged again');
$node->safe_psql('postgres', q(SELECT stream_engine.drop_stream('s', true)));
nothing_is_left('the end');

my @errors =
  grep { /PANIC|TRAP|was terminated by signal/ } split /\n/, log_since($node, 0);
is("@errors", '', 'the log has no crash');

$node->stop('fast');
done_testing();
