
# Rule: a session may pause or drop a query, take its time, and drop the stream in the
# same transaction, while records come in; its reader holds nothing that it waits for.

use strict;
use warnings FATAL => 'all';

use IPC::Run qw(start);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

my $node = new_node('main', conf => q(
stream_engine.commit_interval = 10ms
deadlock_timeout = 100ms
));

$node->safe_psql('postgres', q(
	CREATE TABLE log (partition int, "offset" bigint GENERATED ALWAYS AS IDENTITY, timestamp timestamptz,
		key bytea, value bytea, PRIMARY KEY (partition, "offset"));
	CREATE SERVER busy FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.log', partitions '1');
	CREATE TABLE enough ();
	CREATE PROCEDURE feed() LANGUAGE plpgsql AS $$
	BEGIN
		WHILE to_regclass('enough') IS NOT NULL LOOP
			INSERT INTO log (partition, timestamp, value) VALUES (0, now(),
				convert_to(json_build_object('t', clock_timestamp())::text, 'UTF8'));
			COMMIT;
			PERFORM pg_sleep(0.002);
		END LOOP;
	END $$;
	-- no other session holds a lock on the stream: its reader has let go of it, and stays away
	CREATE PROCEDURE wait_for_reader() LANGUAGE plpgsql AS $$
	DECLARE
		free int := 0;
	BEGIN
		FOR i IN 1 .. 3000 LOOP
			free := CASE WHEN EXISTS (SELECT FROM pg_locks WHERE relation = 'orders'::regclass AND granted
				AND pid <> pg_backend_pid()) THEN 0 ELSE free + 1 END;
			EXIT WHEN free = 20;
			PERFORM pg_sleep(0.01);
		END LOOP;
	END $$;
));
my ($out, $err) = ('', '');
my $feed = start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'CALL feed()' ],
	'<', \undef, '>', \$out, '2>', \$err,
	IPC::Run::timeout(10 * $PostgreSQL::Test::Utils::timeout_default));

foreach my $first ("SELECT stream_engine.pause('orders')", "SELECT stream_engine.drop_query('sales')",
	'DROP TABLE sales', "SELECT stream_engine.skip('orders', 0, 1000000000)",
	'ALTER TABLE sales ADD COLUMN note text')
{
	$node->safe_psql('postgres', q(
		SELECT stream_engine.create_stream('orders', server => 'busy', topic => 'orders',
			columns => 't timestamptz', event_time => 't', watermark_delay => '0', staging_retention => '0',
			start => 'latest');
		SELECT stream_engine.create_query('sales',
			'SELECT count(*) AS n FROM orders GROUP BY tumble(t, ''10 milliseconds'')')));
	wait_for($node, 'SELECT count(*) > 3 FROM sales');
	my ($status, undef, $stderr) = $node->psql('postgres', qq(
		BEGIN;
		$first;
		CALL wait_for_reader();
		SELECT stream_engine.drop_stream('orders', cascade => true);
		DROP TABLE IF EXISTS sales;
		COMMIT;), on_error_stop => 1);
	is($status, 0, "$first, then drop the stream") or diag($stderr);
}

# Rule: what stops a stream stops the reader, too, that a query is being given meanwhile.
$node->safe_psql('postgres', q(
	SELECT stream_engine.create_stream('orders', server => 'busy', topic => 'orders', columns => 't timestamptz',
		event_time => 't', staging_retention => '0');
	DO $$ BEGIN
		PERFORM stream_engine.create_query('a', 'SELECT count(*) AS n FROM orders GROUP BY tumble(t, ''1 hour'')');
		PERFORM stream_engine.create_query('b', 'SELECT count(*) AS n FROM orders GROUP BY tumble(t, ''1 day'')');
	END $$));
is($node->safe_psql('postgres', 'SELECT count(*) FROM stream_engine.reader'), '1', 'two queries have one reader');
my ($in, $first_out) = ("BEGIN; SELECT stream_engine.pause('b'); SELECT 'split';\n", '');
my $first = start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$first_out, '2>', \$err,
	IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
$first->pump until $first_out =~ /split/;
my $second_out = '';
my $second = start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SELECT stream_engine.pause('orders')" ],
	'<', \undef, '>', \$second_out, '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
wait_for($node, q(SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%pause(''orders'')%')));
$in .= "COMMIT;\n\\q\n";
$first->finish;
$second->finish;
is($node->safe_psql('postgres', 'SELECT count(*), min(generation) > 1 FROM stream_engine.reader'), '2|t', 'both readers are fenced');

# Rule: a commit takes a bounded number of late and bad records, for as long as it lasts the
# stream is locked.
$node->safe_psql('postgres', q(
	CREATE TABLE old (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea, PRIMARY KEY (partition, "offset"));
	CREATE SERVER idle FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.old', partitions '1');
	SELECT stream_engine.create_stream('past', server => 'idle', topic => 'past', columns => 't timestamptz',
		event_time => 't', watermark_delay => '0', staging_retention => '0');
	SELECT stream_engine.create_query('hourly', 'SELECT count(*) AS n FROM past GROUP BY tumble(t, ''1 hour'')');
	INSERT INTO old SELECT 0, 0, now(), NULL, convert_to(json_build_object('t', now())::text, 'UTF8');
	CALL stream_engine.wait('hourly', '1 minute');
	INSERT INTO old SELECT 0, i, now(), NULL, CASE WHEN i % 3 = 0 THEN 'bad' ELSE '{"t": "2020-01-01T00:00:00Z"}'::bytea END
	FROM generate_series(1, 60000) AS i;
	CALL stream_engine.wait('hourly', '2 minutes')));
is($node->safe_psql('postgres', q(SELECT (SELECT count(*) FROM stream_engine.late_events WHERE query = 'hourly'::regclass),
		(SELECT count(*) FROM stream_engine.dead_letters WHERE stream = 'past'::regclass))), '40000|20000', 'late and bad records are kept');
is($node->safe_psql('postgres', q(SELECT max(n) < 20000 FROM (SELECT count(*) AS n FROM (
		SELECT seen_at FROM stream_engine.late_events UNION ALL SELECT seen_at FROM stream_engine.dead_letters) r GROUP BY seen_at) c)),
	't', 'by commits that are not large');

$node->safe_psql('postgres', 'DROP TABLE enough');
$feed->finish;
unlike(log_since($node, 0), qr/deadlock detected/, 'nobody was a deadlock\'s victim');

$node->stop;
done_testing();
