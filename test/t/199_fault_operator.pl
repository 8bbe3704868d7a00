
# Rule: what an operator does to a stream whose queries stand at different places, or have failed,
# shows in each of them as what has happened to it.  A record that is skipped when one query has read it
# and another has not counts for the one and is skipped for the other, and both are accounted for and
# verified.  wait() of a stream names the queries that have failed.  An error of the source that
# will not go by itself stops the stream.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Orders;
use StreamEngine::Test;

my $node = new_node('main', conf => q(
stream_engine.commit_interval = 20ms
stream_engine.retry_interval = 20ms
stream_engine.max_failures = 3
));

sub sql
{
	my ($sql, $dbname) = @_;
	return $node->safe_psql($dbname // 'postgres', $sql);
}

sql(q(
	CREATE TABLE log (partition int, "offset" bigint GENERATED ALWAYS AS IDENTITY (MINVALUE 0 START 0),
		timestamp timestamptz DEFAULT now(), key bytea, value bytea, PRIMARY KEY (partition, "offset"));
	CREATE SERVER source FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.log', partitions '1');
	CREATE FUNCTION feed(first int, last int) RETURNS void LANGUAGE sql AS $$
		INSERT INTO log (partition, value) SELECT 0, convert_to(format('{"k": %s, "t": "%s"}', i % 3,
			timestamptz '2025-01-01 00:00Z' + i * interval '1 second'), 'UTF8') FROM generate_series(first, last) i $$;
	BEGIN;
	SELECT stream_engine.create_stream('s', server => 'source', topic => 'log', columns => 'k int, t timestamptz',
		event_time => 't', watermark_delay => '0', idle_timeout => '1 hour', staging_retention => '0');
	SELECT stream_engine.create_query(name, $$ SELECT k, count(*) AS n FROM s GROUP BY tumble(t, '10 seconds'), k $$)
		FROM unnest(ARRAY['ahead', 'behind']) AS name;
	COMMIT;
	SELECT feed(0, 14);
	CALL stream_engine.wait('s', '1 minute')));

# ---------------------------------------------------------------------------
# skip()
# ---------------------------------------------------------------------------

my @queries = qw(ahead behind);

# Skipped records and windows of the queries, which are right.
sub is_skipped
{
	my ($when, $dbname, %skipped) = @_;

	foreach my $query (sort keys %skipped)
	{
		sql("CALL stream_engine.wait('$query', '1 minute')", $dbname);
		is(sql("SELECT sum(skipped) FROM stream_engine.stat_partitions WHERE query = '$query'::regclass", $dbname), $skipped{$query}, "$when: skipped for $query");
		is_accounted($node, $query) if $dbname eq 'postgres';
		is(sql("SELECT * FROM stream_engine.verify('$query')", $dbname), '', "$when: $query is verified");
	}
	return;
}

sql("SELECT stream_engine.pause('behind')");
sql('SELECT feed(15, 35)');
sql("CALL stream_engine.wait('ahead', '1 minute')");
# One for each of a window that is closed for the one, and one that is open; and one that none has read.
sql("SELECT stream_engine.skip('s', 0, $_)") foreach 17, 32, 38;
my ($rc, $out, $err) = $node->psql('postgres', "SELECT stream_engine.skip('s', 0, 3)");
like($err, qr/offset 3 of partition 0 has been read already/, 'what all have read cannot be skipped');
sql("SELECT stream_engine.resume('behind')");
sql('SELECT feed(36, 55)');
is_skipped('one ahead', 'postgres', ahead => 1, behind => 3);
is(sql('SELECT sum(n) FROM ahead_live'), 55, 'the one that was ahead has counted them');
is(sql('SELECT sum(n) FROM behind_live'), 53, 'the other one has not');
wait_for($node, 'SELECT count(DISTINCT reader) = 1 FROM stream_engine.query_progress');
sql('SELECT feed(56, 75)');
is_skipped('read together', 'postgres', ahead => 1, behind => 3);
sql(q(SELECT stream_engine.create_query('later', $$ SELECT k, count(*) AS n FROM s GROUP BY tumble(t, '10 seconds'), k $$)));
is_skipped('a query that comes later', 'postgres', ahead => 1, behind => 3, later => 3);

# Read anew, they are skipped for all.
my $file = PostgreSQL::Test::Utils::tempdir('dump') . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $file, $node->connstr('postgres') ], 'dumped');
sql('CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy'), $file ], 'restored');
sql("DELETE FROM $_", 'copy') foreach @queries, 'later';
sql("SELECT stream_engine.resume('s', start => 'earliest')", 'copy');
is_skipped('restored', 'copy', ahead => 3, behind => 3, later => 3);

# ---------------------------------------------------------------------------
# Failed queries
# ---------------------------------------------------------------------------

sql(q(SELECT stream_engine.create_query('failing', $$ SELECT k, count(*) / min(k - 1) AS n FROM s GROUP BY tumble(t, '10 seconds'), k $$)));
wait_for($node, "SELECT state = 'error' FROM stream_engine.queries WHERE name = 'failing'::regclass");
($rc, $out, $err) = $node->psql('postgres', "CALL stream_engine.wait('s', '1 minute')");
is($rc, 0, 'wait() of the stream waits for the others');
like($err, qr/WARNING:  query (?:public\.)?failing is in state error and has not been waited for/, 'and names the one that has failed');
($rc, $out, $err) = $node->psql('postgres', "CALL stream_engine.wait('ahead', '1 minute')");
is("$rc$err", '0', 'wait() of another query does not');
($rc, $out, $err) = $node->psql('postgres', "CALL stream_engine.wait('failing', '1 minute')");
like($err, qr/failing does not go on: division by zero/, 'wait() of the failed one raises');
sql("SELECT stream_engine.drop_query('failing')");
($rc, $out, $err) = $node->psql('postgres', "CALL stream_engine.wait('s', '1 minute')");
is("$rc$err", '0', 'no one has failed');

# ---------------------------------------------------------------------------
# The source
# ---------------------------------------------------------------------------

my $position = log_position($node);
sql(q(CREATE FUNCTION wrong() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE undefined_function; END $$;
	SELECT stream_engine.pause('s');
	ALTER TABLE log RENAME TO away;
	CREATE VIEW log AS SELECT * FROM away WHERE (SELECT wrong()) IS NOT NULL;
	ALTER SERVER source OPTIONS (SET partitions '2');
	SELECT stream_engine.resume('s')));
wait_for($node, "SELECT bool_and(state = 'error' AND error = 'undefined_function') FROM stream_engine.queries");
unlike(log_since($node, $position), qr/waits for its source/, 'an error of a function is no matter of the source');
sql("DROP VIEW log; ALTER TABLE away RENAME TO log; ALTER SERVER source OPTIONS (SET partitions '1'); SELECT feed(76, 95)");
sql("SELECT stream_engine.resume('$_')") foreach @queries, 'later';
is_skipped('mended', 'postgres', ahead => 1, behind => 3, later => 3);

unlike(log_since($node, 0), qr/PANIC|TRAP|was terminated by signal/, 'the log has no crash');
leaves_nothing($node);
done_testing();
