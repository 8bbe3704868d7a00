
# Rule: state that is taken from shared memory is the state of the log.  Under one
# snapshot the open windows are the same with stream_engine.state_cache on and off, in
# READ COMMITTED and in REPEATABLE READ, while windows close, runs are folded, slices
# are evicted for others and filled again, and definitions are read anew; each window
# is there exactly once.  What workers emit from it is what the batch gives.

use strict;
use warnings FATAL => 'all';

use IPC::Run qw(start);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use StreamEngine::Test;

# As little memory as there can be room for some of the slices: 60 pages or so.
my $batches = long_run() ? 3000 : 150;
my $node    = new_node('main', conf => q(
stream_engine.commit_interval = 10ms
stream_engine.state_memory = 512kB
));
my @queries = qw(tumbling wide hopping cumulating sessions totals changing late);

$node->safe_psql('postgres', q(
	CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
		PRIMARY KEY (partition, "offset"));
	CREATE SERVER hammer FOREIGN DATA WRAPPER stream_engine_table
		OPTIONS (table 'public.log', partitions '2');
	SELECT stream_engine.create_stream('orders', server => 'hammer', topic => 'orders',
		columns => 'key int, name text, t timestamptz', event_time => 't', watermark_delay => '2 seconds',
		idle_timeout => '1 hour', staging_retention => '0');
	SELECT stream_engine.create_query('tumbling', $$
		SELECT key, count(*) AS n, min(name) AS low FROM orders GROUP BY tumble(t, '1 second'), key $$);
	-- folded again and again: 400 keys, and all of them in each commit
	SELECT stream_engine.create_query('wide', $$
		SELECT name, count(*) AS n, max(key) AS high FROM orders GROUP BY tumble(t, '20 seconds'), name $$);
	SELECT stream_engine.create_query('hopping', $$
		SELECT key, count(*) AS n FROM orders GROUP BY hop(t, '3 seconds', every => '1 second'), key $$);
	SELECT stream_engine.create_query('cumulating', $$
		SELECT key, count(*) AS n FROM orders GROUP BY cumulate(t, '8 seconds', step => '2 seconds'), key $$);
	SELECT stream_engine.create_query('sessions', $$
		SELECT key, count(*) AS n FROM orders GROUP BY session(t, '60 milliseconds'), key $$);
	SELECT stream_engine.create_query('totals', $$
		SELECT name, count(*) AS n FROM orders GROUP BY name $$, trigger_interval => '1 second',
		state_ttl => '5 seconds');
	SELECT stream_engine.create_query('changing', $$
		SELECT key, count(*) AS n FROM orders GROUP BY tumble(t, '1 second'), key $$,
		emit => 'changes', emit_interval => '0');
	SELECT stream_engine.create_query('late', $$
		SELECT name, count(*) AS n FROM orders GROUP BY tumble(t, '1 second'), name $$,
		allowed_lateness => '3 seconds');

	-- 400 records of two seconds, up to two seconds out of order
	CREATE PROCEDURE feed(batches int) LANGUAGE plpgsql AS $$
	BEGIN
		FOR batch IN 0 .. batches - 1 LOOP
			INSERT INTO log SELECT i % 2, batch * 200 + i / 2, now(), NULL,
				convert_to(format('{"key": %s, "name": "%s", "t": "%s"}', (batch * 400 + i) / 40 % 6,
					'name ' || (i * 7919 + batch) % 400,
					timestamptz '2026-01-01 00:00+00' + (batch * 400 + i) * interval '5 ms'
					- (i * 31 % 20) * interval '100 ms'), 'UTF8')
			FROM generate_series(0, 399) i;
			COMMIT;
			WHILE (SELECT COALESCE(min(p.decoded), 0) < batch * 400 - 1200 FROM stream_engine.stat_queries p) LOOP
				PERFORM pg_sleep(0.005);
				COMMIT;
			END LOOP;
		END LOOP;
	END $$;

	CREATE FUNCTION shown(query regclass, OUT rows bigint, OUT distinct_rows bigint, OUT fingerprint text)
	LANGUAGE plpgsql STABLE AS $$
	BEGIN
		EXECUTE format('SELECT count(*), count(DISTINCT (window_start, window_end, %1$I)),
			md5(string_agg(l::text, %3$L ORDER BY l)) FROM %2$s_live l WHERE NOT is_final OR window_end = %4$L',
			(SELECT attname FROM pg_attribute WHERE attrelid = query AND attnum = 3), query, ' ', 'infinity')
		INTO rows, distinct_rows, fingerprint;
	END $$;

	-- both ways under one snapshot, in either order; returns how often it looked
	CREATE PROCEDURE hammer(query regclass, records bigint, INOUT looks int) LANGUAGE plpgsql AS $$
	DECLARE
		one record;
		two record;
		held bool := current_setting('transaction_isolation') = 'repeatable read';
	BEGIN
		LOOP
			COMMIT;
			-- a STABLE function's queries have the snapshot of the statement
			IF looks % 2 = 0 THEN
				SELECT a.* INTO one FROM shown(query) a;
			END IF;
			SELECT b.cached, b.logged INTO two FROM compare(query) b;
			IF two.cached <> two.logged THEN
				RAISE EXCEPTION '%: % from memory, % from the log', query, two.cached, two.logged;
			END IF;
			IF held AND looks % 2 = 0 AND one::text <> two.cached THEN
				RAISE EXCEPTION '%: % has become %', query, one, two.cached;
			END IF;
			IF looks % 2 = 0 AND one.rows <> one.distinct_rows AND query <> 'sessions'::regclass THEN
				RAISE EXCEPTION '%: % windows in % rows', query, one.distinct_rows, one.rows;
			END IF;
			looks := looks + 1;
			EXIT WHEN (SELECT min(decoded) = records FROM stream_engine.stat_queries);
		END LOOP;
	END $$;

	CREATE FUNCTION compare(query regclass, OUT cached text, OUT logged text) LANGUAGE plpgsql STABLE AS $$
	BEGIN
		cached := shown(query)::text;
		PERFORM set_config('stream_engine.state_cache', 'off', true);
		logged := shown(query)::text;
		PERFORM set_config('stream_engine.state_cache', 'on', true);
	END $$;

	-- have a definition read again from time to time
	CREATE PROCEDURE disturb(records bigint) LANGUAGE plpgsql AS $$
	DECLARE
		name text;
		upto bigint;
	BEGIN
		LOOP
			FOREACH name IN ARRAY '{wide,hopping,sessions,totals}'::text[] LOOP
				PERFORM stream_engine.pause(name::regclass);
				COMMIT;
				PERFORM stream_engine.resume(name::regclass);
				COMMIT;
				-- it goes on for a while
				SELECT LEAST(decoded + records / 50, records) INTO upto FROM stream_engine.stat_queries WHERE query = name::regclass;
				WHILE (SELECT decoded < upto FROM stream_engine.stat_queries WHERE query = name::regclass) LOOP
					PERFORM pg_sleep(0.005);
					COMMIT;
				END LOOP;
			END LOOP;
			EXIT WHEN (SELECT min(decoded) >= records / 2 FROM stream_engine.stat_queries);
		END LOOP;
	END $$;
));

my $records = $batches * 400;
my @calls   = ([ 'read\\ committed', "CALL feed($batches)" ], [ 'read\\ committed', "CALL disturb($records)" ]);
foreach my $query (@queries)
{
	push @calls, [ 'read\\ committed', "CALL hammer('$query', $records, 0)" ];
	push @calls, [ 'repeatable\\ read', "CALL hammer('$query', $records, 0)" ]
	  if $query =~ /wide|hopping|sessions|totals/;
}
my @clients = map {
	my ($out, $err) = ('', '');
	local $ENV{PGOPTIONS} = "-c default_transaction_isolation=$_->[0]";
	my $run = start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c', $_->[1] ],
		'<', \undef, '>', \$out, '2>', \$err,
		IPC::Run::timeout(10 * $PostgreSQL::Test::Utils::timeout_default));
	{ name => "$_->[1], $_->[0],", run => $run, out => \$out, err => \$err }
} @calls;
foreach my $client (@clients)
{
	$client->{run}->finish;
	is(${ $client->{err} }, '', "$client->{name} has found nothing wrong");
	chomp ${ $client->{out} };
	note("looked ${ $client->{out} } times") if ${ $client->{out} };
}

note($node->safe_psql('postgres', 'SELECT * FROM stream_engine.stat_state ORDER BY 1'));
note($node->safe_psql('postgres', 'SELECT * FROM stream_engine.state_memory()'));
is($node->safe_psql('postgres', q(
	SELECT sum(hits) > 0 AND sum(evictions) > 0 AND sum(misses) > 0 FROM stream_engine.stat_state)),
	't', 'memory was read, and was too small');
is($node->safe_psql('postgres',
		'SELECT DISTINCT decoded, failed FROM stream_engine.stat_queries'),
	"$records|0", 'every record was read');
foreach my $query (grep { !/totals|sessions/ } @queries)
{
	is($node->safe_psql('postgres', "SELECT count(*) FROM stream_engine.verify('$query')"),
		0, "$query is what its batch gives");
}

# Nothing is left behind by workers that end.
$node->safe_psql('postgres', "SELECT stream_engine.pause('orders')");
wait_for($node, 'SELECT total = free FROM stream_engine.state_memory()');
is($node->safe_psql('postgres', 'SELECT count(*) FROM stream_engine.stat_state'), 0, 'no query is fed');

$node->stop;
done_testing();
