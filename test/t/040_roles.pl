
# Streams and queries belong to roles: a plain role with USAGE on the server and
# CREATE on a schema makes, queries, pauses and drops its own; others see nothing
# of them and can do nothing to them; and whatever code a role puts into streams,
# queries and result tables runs as that role, by whomever it is set off.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $node = new_node('main', conf => 'stream_engine.commit_interval = 50ms');
my $mock = mockd();
my $bootstrap = $mock->bootstrap;
$mock->create('t', 1);

$node->safe_psql('postgres', qq(
	CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE carol LOGIN;
	CREATE SERVER kafka FOREIGN DATA WRAPPER stream_engine_kafka
		OPTIONS (bootstrap_servers '$bootstrap', fetch_wait_max_ms '50');
	GRANT USAGE ON FOREIGN SERVER kafka TO alice;
	CREATE SCHEMA alice AUTHORIZATION alice;
	CREATE SCHEMA bob AUTHORIZATION bob;
	GRANT USAGE ON SCHEMA alice TO bob, carol;
));

# Runs SQL as a role and returns its output; dies when it fails.
sub as_role
{
	my ($role, $sql) = @_;
	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $role ]);
}

# Runs SQL as a role that must fail so.
sub is_refused
{
	my ($role, $sql, $error, $name) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', $role ]);
	ok($rc != 0 && $err =~ $error, "$role: $name is refused") or diag("$rc: $out$err");
	return;
}

sub record
{
	my ($key, $value, $second) = @_;
	return sprintf('{"k": "%s", "v": %s, "ts": "2025-01-01T00:%02d:%02dZ"}',
		$key, $value, $second / 60, $second % 60);
}

my $columns = 'k text, v int CHECK (v >= 0), ts timestamptz';
my $create_stream = sub {
	my ($name, $more) = @_;
	return qq(SELECT stream_engine.create_stream('$name', server => 'kafka', topic => 't',
		columns => '$columns', event_time => 'ts', watermark_delay => '1 second',
		idle_timeout => '1 hour'));
};
my $select = sub {
	my ($stream) = @_;
	return "SELECT k, sum(v) AS total, count(*) AS n FROM $stream GROUP BY tumble(ts, '10 seconds'), k";
};

# ---------------------------------------------------------------------------
# A role's own
# ---------------------------------------------------------------------------

as_role('alice', $create_stream->('alice.s'));
as_role('alice', "SELECT stream_engine.create_query('alice.q', '" . ($select->('alice.s') =~ s/'/''/gr) . "')");
$mock->produce('t', 0, record('a', 1, 1), record('b', 2, 2), record('a', -1, 3), record('a', 5, 30),
	record('b', 7, 4));
as_role('alice', "CALL stream_engine.wait('alice.q', '1 minute')");

is(as_role('alice', 'SELECT k, total, n FROM alice.q ORDER BY 1'), "a|1|1\nb|2|1", 'alice sees her results');
is(as_role('alice', 'SELECT k, total, is_final FROM alice.q_live ORDER BY 1, 2'),
	"a|1|t\na|5|f\nb|2|t", 'her open windows');
is(as_role('alice', 'SELECT count(*) FROM alice.s'), '4', 'her stream');
as_role('alice', "CALL stream_engine.wait('alice.s', '1 minute')");
is(as_role('alice', 'SELECT count(*) FROM alice.s_recent'), '4', 'the rows consumed lately');
is(as_role('alice', 'SELECT partition, "offset" FROM stream_engine.late_events'), '0|4', 'her late record');
is(as_role('alice', 'SELECT partition, "offset", column_name FROM stream_engine.dead_letters') =~ /^0\|2\|/ ? 1 : 0,
	1, 'her bad record');
is(as_role('alice', "SELECT count(*) FROM stream_engine.verify('alice.q')"), '0', 'and verifies them');
is(as_role('alice', 'SELECT (SELECT count(*) FROM stream_engine.streams), (SELECT count(*) FROM stream_engine.queries),
	(SELECT count(*) FROM stream_engine.stat_queries), (SELECT count(*) FROM stream_engine.stat_partitions),
	(SELECT count(*) FROM stream_engine.progress)'), '1|1|1|2|1', 'her stream and query are in the views');
as_role('alice', "SELECT * FROM stream_engine.why('alice.q')");
as_role('alice', "SELECT stream_engine.pause('alice.q')");
is(as_role('alice', 'SELECT state FROM stream_engine.queries'), 'paused', 'she pauses');
as_role('alice', "SELECT stream_engine.resume('alice.q')");
is(as_role('alice', 'SELECT state FROM stream_engine.queries'), 'running', 'and resumes');

# ---------------------------------------------------------------------------
# Others
# ---------------------------------------------------------------------------

is(as_role('bob', 'SELECT (SELECT count(*) FROM stream_engine.streams), (SELECT count(*) FROM stream_engine.queries),
	(SELECT count(*) FROM stream_engine.stat_queries), (SELECT count(*) FROM stream_engine.stat_partitions),
	(SELECT count(*) FROM stream_engine.progress), (SELECT count(*) FROM stream_engine.late_events),
	(SELECT count(*) FROM stream_engine.dead_letters)'), '0|0|0|0|0|0|0', 'bob sees nothing of alice in the views');
is(as_role('bob', 'SELECT count(*) FROM stream_engine.stat_workers WHERE message IS NOT NULL'), '0',
	'nor messages of her workers');
foreach my $table (qw(stream query reader reader_partition query_progress query_partition
  reader_history query_origin ledger
	state_log late_event dead_letter))
{
	is_refused('bob', "SELECT * FROM stream_engine.$table", qr/permission denied/, "reading the engine's table $table");
}
is_refused('bob', $_->[0], qr/must be owner|permission denied/, $_->[0])
  foreach (
	["SELECT stream_engine.pause('alice.q')"],      ["SELECT stream_engine.pause('alice.s')"],
	["SELECT stream_engine.resume('alice.q')"],     ["SELECT stream_engine.resume('alice.s', 'latest')"],
	["SELECT stream_engine.drop_query('alice.q')"], ["SELECT stream_engine.drop_stream('alice.s', true)"],
	["SELECT stream_engine.skip('alice.s', 0, 100)"], ["SELECT * FROM stream_engine.verify('alice.q')"],
	["CALL stream_engine.wait('alice.q')"],         ['SELECT * FROM alice.q'],
	['SELECT * FROM alice.q_live'],                 ['SELECT * FROM alice.q_open'],
	['SELECT * FROM alice.s'],                      ['SELECT * FROM alice.s_recent'],
	['SELECT * FROM alice.q_batch'],                ['DROP TABLE alice.q CASCADE']);
is_refused('bob', "SELECT * FROM stream_engine.why('alice.q')", qr/is not a query of yours/, 'why()');
is_refused('bob', "SELECT stream_engine.create_query('bob.q', '" . ($select->('alice.s') =~ s/'/''/gr) . "')",
	qr/permission denied/, 'a query over a stream that he may not read');
is_refused('bob', $create_stream->('bob.s'), qr/permission denied for foreign server/, 'a stream without USAGE on the server');
is_refused('bob', $create_stream->('alice.t'), qr/permission denied/, "a stream in another's schema");
is_refused('bob', q(BEGIN;
	CREATE FOREIGN TABLE bob.q_open (window_start timestamptz, window_end timestamptz, k text, total bigint, n bigint)
		SERVER stream_engine_state;
	SELECT count(*) FROM bob.q_open), qr/does not belong to a query/, 'a table of open windows of his own making');
# Functions of the engine that anybody may call, and what they check.  Those of the first list check
# that what is named is the caller's; those of the second know nothing, or show what the caller may see.
is(as_role('bob', q(SELECT string_agg(DISTINCT proname, ' ' ORDER BY proname) FROM pg_proc
		WHERE pronamespace = 'stream_engine'::regnamespace AND has_function_privilege(oid, 'EXECUTE')
		AND proname NOT IN ('advance_watermark', 'alter_query', 'alter_stream', 'create_query', 'create_stream', 'drop_query', 'drop_stream',
			'pause', 'purge_dead_letters', 'purge_late', 'resume', 'retry_dead_letters', 'retry_late', 'skip', 'validate_query',
			'verify', 'wait', 'why')
		AND prorettype NOT IN ('event_trigger'::regtype, 'fdw_handler'::regtype) AND proname NOT LIKE '%_fdw_validator')),
	'home may_see metrics nearly_equal next_window_end query_reader readable run_cache staging_fits state_memory state_size stream_option wake watermark_delay worker_slots',
	'there are no other functions');
is(as_role('bob', "SELECT count(*) FILTER (WHERE name NOT IN ('workers')) FROM stream_engine.metrics()"), '0', 'bob sees nothing of alice in metrics()');
is(as_role('bob', "SELECT stream_engine.next_window_end('alice.q'), stream_engine.query_reader('alice.q'), stream_engine.state_size('alice.q')"),
	'||', 'nor by functions that views call');
is(as_role('bob', 'SELECT (SELECT count(*) FROM stream_engine.run_cache()), (SELECT count(*) FROM stream_engine.stat_state),
		(SELECT count(*) FROM stream_engine.failed_records), (SELECT count(*) FROM stream_engine.late_assignments)'), '0|0|0|0', 'nor in memory');
is(as_role('alice', "SELECT stream_engine.next_window_end('alice.q') IS NOT NULL, stream_engine.query_reader('alice.q') IS NOT NULL,
		(SELECT slices FROM stream_engine.state_size('alice.q')), (SELECT count(*) FROM stream_engine.run_cache()), (SELECT open_slices FROM stream_engine.stat_queries)"),
	't|t|1|1|1', 'which show alice what is hers');
is_refused('bob', $_, qr/must be owner|permission denied/, $_)
  foreach (
	"SELECT stream_engine.retry_late('alice.q')",           "SELECT stream_engine.retry_dead_letters('alice.s')",
	"SELECT stream_engine.purge_late('alice.q', now())",     "SELECT stream_engine.purge_dead_letters('alice.s', now())",
	"SELECT stream_engine.advance_watermark('alice.s', now())", "SELECT stream_engine.alter_query('alice.q', late => 'drop')",
	"SELECT stream_engine.alter_stream('alice.s', max_future => '1 day')", "SELECT * FROM stream_engine.query_ledger",
	"SELECT stream_engine.validate_query('" . ($select->('alice.s') =~ s/'/''/gr) . "')");
is_refused('bob', "SELECT stream_engine.on_drop()", qr/permission denied|can only be called as/, 'on_drop()');

# What a worker cannot do its owner learns, and nobody else.
$mock->down(1);
wait_for($node, q(SELECT count(*) > 0 FROM stream_engine.stat_workers WHERE kind = 'reader' AND message <> ''));
is(as_role('alice', "SELECT count(*) FROM stream_engine.why('alice.q') WHERE finding = 'the worker has a problem' AND detail <> ''"), '1', 'why() tells alice about her worker');
is(as_role('bob', 'SELECT count(*) FROM stream_engine.stat_workers WHERE message IS NOT NULL'), '0', 'stat_workers does not tell bob');
$mock->up(1);
as_role('alice', "CALL stream_engine.wait('alice.q', '1 minute')");

# Given the right to read the stream, bob has queries of his own over it.
as_role('alice', 'GRANT SELECT ON alice.s TO bob');
as_role('bob', "SELECT stream_engine.create_query('bob.q', '" . ($select->('alice.s') =~ s/'/''/gr) . "')");
as_role('bob', "CALL stream_engine.wait('bob.q', '1 minute')");
is(as_role('bob', 'SELECT k, total, n FROM bob.q ORDER BY 1'), "a|1|1\nb|2|1", 'bob has results of his own query');
is(as_role('bob', q(SELECT query = 'bob.q'::regclass, "offset" FROM stream_engine.late_events)), 't|4', 'his late record');
is(as_role('bob', 'SELECT count(*) FROM stream_engine.dead_letters'), '0', "not the stream's bad records");
is(as_role('alice', q(SELECT DISTINCT query = 'alice.q'::regclass FROM stream_engine.late_events)), 't', "alice does not see bob's");
is(as_role('bob', q(SELECT DISTINCT query = 'bob.q'::regclass FROM stream_engine.stat_partitions)), 't', "bob sees his own reader's position");
is_refused('alice', "SELECT stream_engine.drop_query('bob.q')", qr/permission denied|must be owner/, "dropping bob's query");
is_refused('alice', "SELECT stream_engine.drop_stream('alice.s', true)", qr/must be owner|depend/, "dropping the stream from under bob's query");

# ... until it is taken away.
as_role('alice', 'REVOKE SELECT ON alice.s FROM bob');
$mock->produce('t', 0, record('a', 1, 45));
wait_for($node, "SELECT state = 'error' AND error LIKE 'permission denied%' FROM stream_engine.queries WHERE name = 'bob.q'::regclass");
as_role('alice', "CALL stream_engine.wait('alice.q', '1 minute')");
is(as_role('alice', 'SELECT count(*) FROM alice.q'), '3', "alice's query goes on");

# ---------------------------------------------------------------------------
# Readers of the results
# ---------------------------------------------------------------------------

as_role('alice', 'GRANT SELECT ON alice.q_live TO carol');
is_refused('carol', 'SELECT * FROM alice.q_live', qr/permission denied for table q\b/, 'the live view without the result table');
as_role('alice', 'GRANT SELECT ON alice.q, alice.q_open TO carol');
is(as_role('carol', 'SELECT k, total, is_final FROM alice.q_live ORDER BY is_final DESC, 1, 2'),
	as_role('alice', 'SELECT k, total, is_final FROM alice.q_live ORDER BY is_final DESC, 1, 2'), 'a reader with SELECT on all three sees live rows');
as_role('alice', 'ALTER TABLE alice.q ENABLE ROW LEVEL SECURITY; CREATE POLICY small ON alice.q FOR SELECT TO carol USING (total < 2)');
is(as_role('carol', 'SELECT k FROM alice.q'), 'a', 'row security holds for the results');
is_refused('carol', 'SELECT * FROM alice.q_live', qr/row.*security/, 'the live view under row security');
is_refused('carol', 'SELECT * FROM alice.q_open', qr/row.*security/, 'the open windows under row security');
# Whoever reads through a view sees what its owner sees.  The live view itself always shows what the
# user of the session may see (security_invoker).
as_role('alice', 'CREATE VIEW alice.shown AS SELECT k, true AS is_final FROM alice.q UNION ALL SELECT k, false FROM alice.q_open;
	CREATE VIEW alice.mine AS SELECT * FROM alice.q_live; GRANT SELECT ON alice.shown, alice.mine TO carol');
is_refused('carol', 'SELECT * FROM alice.mine', qr/row.*security/, 'the live view under row security, through a view,');
is(as_role('carol', 'SELECT count(*) > 2 AND bool_or(NOT is_final) FROM alice.shown'), 't', "alice's view shows carol what alice sees");
as_role('alice', 'GRANT USAGE, CREATE ON SCHEMA alice TO carol');
as_role('carol', 'CREATE VIEW alice.hidden AS SELECT * FROM alice.q_open; GRANT SELECT ON alice.hidden TO alice');
is_refused('alice', 'SELECT * FROM alice.hidden', qr/row.*security/, "carol's view, which shows what carol sees,");
as_role('carol', 'DROP VIEW alice.hidden');
as_role('alice', 'DROP VIEW alice.shown, alice.mine; REVOKE CREATE ON SCHEMA alice FROM carol');
as_role('alice', "CALL stream_engine.wait('alice.q', '1 minute')");
is(as_role('alice', 'SELECT count(*) > 3 FROM alice.q_live'), 't', 'the owner sees them');
as_role('alice', 'ALTER TABLE alice.q DISABLE ROW LEVEL SECURITY');

# ---------------------------------------------------------------------------
# Code
# ---------------------------------------------------------------------------

$node->safe_psql('postgres', q(
	CREATE ROLE mallory LOGIN; CREATE SCHEMA mallory AUTHORIZATION mallory;
	GRANT USAGE ON FOREIGN SERVER kafka TO mallory));
as_role('mallory', q(
	CREATE TABLE mallory.seen (place text, who text, what text);
	CREATE FUNCTION mallory.attempt(place text) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		statement text;
		what text;
	BEGIN
		INSERT INTO mallory.seen VALUES (place, current_user, 'is');
		FOREACH statement IN ARRAY ARRAY['RESET ROLE', 'SET ROLE postgres', 'SET ROLE NONE',
			'RESET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION postgres',
			'ALTER ROLE mallory SUPERUSER', 'SELECT pg_read_file(''PG_VERSION'')',
			'TABLE stream_engine.stream', 'TABLE alice.q', 'CREATE TEMP TABLE x ()']
		LOOP
			BEGIN
				EXECUTE statement;
				what := 'did';
			EXCEPTION WHEN OTHERS THEN
				what := 'could not';
			END;
			INSERT INTO mallory.seen VALUES (place, current_user, what || ' ' || statement);
		END LOOP;
	END $$;
	-- what claims to be immutable may call what is not
	CREATE FUNCTION mallory.f(place text, v anyelement) RETURNS anyelement LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		PERFORM mallory.attempt(place);
		RETURN v;
	END $$;
	CREATE FUNCTION mallory.on_result() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM mallory.attempt(TG_ARGV[0]);
		RETURN NEW;
	END $$));
$mock->create('m', 1);
as_role('mallory', q(
	SELECT stream_engine.create_stream('mallory.s', server => 'kafka', topic => 'm',
		columns => $$ k text, v int CHECK (mallory.f('check', v) >= 0), w int DEFAULT mallory.f('default', 1), ts timestamptz $$,
		event_time => 'ts', watermark_delay => '1 second', idle_timeout => '1 hour')));
as_role('mallory', q(
	BEGIN;
	SELECT stream_engine.create_query('mallory.q', $$
		SELECT mallory.f('key', k) AS k, sum(mallory.f('argument', v)) AS total, mallory.f('finish', count(*)) AS n
		FROM mallory.s WHERE mallory.f('where', w) > 0 AND mallory.f('constant', true)
		GROUP BY tumble(ts, '10 seconds'), mallory.f('key', k)
		HAVING mallory.f('having', count(*)) > 0 AND mallory.f('constant', true) $$);
	ALTER TABLE mallory.q ADD CHECK (mallory.f('result check', n) > 0);
	ALTER TABLE mallory.q ALTER revision SET DEFAULT mallory.f('result default', 0);
	CREATE INDEX ON mallory.q (mallory.f('index', n));
	CREATE TRIGGER t BEFORE INSERT ON mallory.q FOR EACH ROW EXECUTE FUNCTION mallory.on_result('trigger');
	CREATE CONSTRAINT TRIGGER c AFTER INSERT ON mallory.q DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
		EXECUTE FUNCTION mallory.on_result('deferred trigger');
	TRUNCATE mallory.seen;
	COMMIT));
$mock->produce('m', 0, record('a', 1, 1), record('b', 2, 2), record('a', 5, 30));
as_role('mallory', "CALL stream_engine.wait('mallory.q', '1 minute')");
is(as_role('mallory', 'SELECT k, total, n FROM mallory.q ORDER BY 1'), "a|1|1\nb|2|1", "mallory's query has results");
is( as_role('mallory', q(SELECT string_agg(DISTINCT place, ', ' ORDER BY place) FROM mallory.seen)),
	'argument, check, constant, default, deferred trigger, finish, having, index, key, result check, trigger, where',
	'all the code was run');

sub is_harmless
{
	my ($when) = @_;
	is(as_role('mallory', q(SELECT DISTINCT place, who FROM mallory.seen WHERE who <> 'mallory')),
		'', "$when: it ran as mallory");
	is(as_role('mallory', q(SELECT DISTINCT place, what FROM mallory.seen
			WHERE what LIKE 'did%' AND what NOT IN ('did RESET ROLE', 'did SET ROLE NONE', 'did RESET SESSION AUTHORIZATION'))),
		'', "$when: and could do nothing that mallory may not");
	is($node->safe_psql('postgres', q(SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory')), 'f', "$when: mallory is no superuser");
	as_role('mallory', 'TRUNCATE mallory.seen');
	return;
}
is_harmless('in the worker');

# A superuser who looks at it sets it off, too.
foreach my $sql ('SELECT * FROM mallory.q_live', 'SELECT * FROM mallory.q_open',
	q(SELECT * FROM stream_engine.verify('mallory.q')),
	q(SELECT * FROM stream_engine.why('mallory.q')), 'SELECT * FROM mallory.s')
{
	my ($rc, $out, $err) = $node->psql('postgres', $sql);
	is($rc, 0, $sql) or diag($err);
	is_harmless($sql);
}

# ---------------------------------------------------------------------------
# The end
# ---------------------------------------------------------------------------

as_role('bob', "SELECT stream_engine.drop_query('bob.q')");
as_role('alice', "SELECT stream_engine.drop_query('alice.q')");
as_role('alice', "SELECT stream_engine.drop_stream('alice.s')");
as_role('mallory', "SELECT stream_engine.drop_stream('mallory.s', true)");
is( $node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM stream_engine.stream), (SELECT count(*) FROM stream_engine.query),
	(SELECT count(*) FROM stream_engine.state_log)'), '0|0|0', 'owners have dropped what was theirs');
$node->safe_psql('postgres', 'REVOKE ALL ON SCHEMA alice FROM bob, carol; REVOKE ALL ON FOREIGN SERVER kafka FROM alice, mallory;
	DROP SCHEMA alice, bob, mallory CASCADE; DROP ROLE alice, bob, carol, mallory');

# Whoever has made the extension may be a superuser no more.
$node->safe_psql('postgres', 'CREATE ROLE boss SUPERUSER; CREATE DATABASE theirs');
$node->safe_psql('theirs', q(SET SESSION AUTHORIZATION boss; CREATE EXTENSION stream_engine; RESET SESSION AUTHORIZATION;
	ALTER ROLE boss NOSUPERUSER;
	CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea);
	CREATE SERVER tables FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.log', partitions '1');
	SELECT stream_engine.create_stream('s', server => 'tables', topic => 't', columns => 't timestamptz', event_time => 't');
	SELECT stream_engine.create_query('q', $$ SELECT count(*) AS n FROM s GROUP BY tumble(t, '1 day') $$);
	INSERT INTO log VALUES (0, 0, NULL, NULL, '{"t": "2026-01-05 00:00+00"}')));
$node->safe_psql('theirs', q(CALL stream_engine.wait('q', '1 minute')));
is($node->safe_psql('theirs', 'DROP TABLE q; DROP FOREIGN TABLE s; DROP TABLE log; SELECT count(*) FROM stream_engine.query'), '0',
	'tables are dropped in the database of an extension whose owner is no superuser any more');
$node->safe_psql('postgres', 'DROP DATABASE theirs; DROP ROLE boss');

$node->stop('fast');
done_testing();
