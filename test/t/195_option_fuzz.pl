
# Whatever text comes as a column list, an option's value or an argument, it is taken or refused by an
# error with a code of its own: no crash, no internal error, and nothing is left of what was refused.
# SE_SEED repeats the choices.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use StreamEngine::Test;

my $seed = $ENV{SE_SEED} || int(time * 1000) % 1_000_000_007;
my $n    = long_run() ? 200_000 : 6_000;
note("SE_SEED=$seed");

my $node = new_node('main', conf => "stream_engine.enabled = off\nmax_locks_per_transaction = 1024");
$node->safe_psql('postgres', q(
	CREATE TABLE log (partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea);
	CREATE SERVER tables FOREIGN DATA WRAPPER stream_engine_table OPTIONS (table 'public.log', partitions '1');
	CREATE SERVER kafka FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (bootstrap_servers 'localhost:1');
	CREATE TABLE errors (what text, input text, sqlstate text, message text);

	CREATE FUNCTION mutated(input text, other text) RETURNS text LANGUAGE plpgsql VOLATILE AS $f$
	DECLARE
		pieces text[] := ARRAY['''', '"', '$', '.', '[', ']', '(', ')', ',', '-', ' ', '0', '9', '1e99', '99999999999999999999',
			'NaN', 'infinity', '-infinity', 'ms', 'days', 'null', '{', '}', ':', '/*', '--', '$$', E'\\n', E'\\t', 'ä', '€', '\\',
			'PATH', 'EPOCH', 'CHECK', 'DEFAULT', 'OPTIONS', 'NOT NULL', '%s', '%n', '_', ';', 'a', E'\\U0001F600'];
		at int;
		n int;
	BEGIN
		FOR i IN 0 .. (random() * 3)::int LOOP
			at := 1 + (random() * length(input))::int;
			n := (random() * random() * 6)::int;
			CASE (random() * 4)::int
				WHEN 0 THEN input := overlay(input PLACING '' FROM at FOR n);
				WHEN 1 THEN input := overlay(input PLACING pieces[1 + (random() * (array_length(pieces, 1) - 1))::int] FROM at FOR 0);
				WHEN 2 THEN input := overlay(input PLACING pieces[1 + (random() * (array_length(pieces, 1) - 1))::int] FROM at FOR n);
				WHEN 3 THEN input := left(input, at) || substr(other, 1 + (random() * length(other))::int);
				ELSE input := input || repeat(substr(input, at, n + 1), (random() * 300)::int);
			END CASE;
		END LOOP;
		RETURN input;
	END $f$;

	-- what is tried is undone
	CREATE PROCEDURE try(what text, input text, statement text) LANGUAGE plpgsql AS $$
	DECLARE
		code text;
		text text;
	BEGIN
		BEGIN
			EXECUTE statement;
			RAISE EXCEPTION USING ERRCODE = 'TAKEN', MESSAGE = 'taken';
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, text = MESSAGE_TEXT;
		END;
		INSERT INTO errors VALUES (what, input, code, text);
	END $$;

	CREATE FUNCTION anyone(choice text[]) RETURNS text LANGUAGE sql VOLATILE AS
		'SELECT choice[1 + (random() * (array_length(choice, 1) - 1))::int]';

	CREATE PROCEDURE fuzz(n int) LANGUAGE plpgsql AS $$
	DECLARE
		lists text[] := ARRAY[
			$l$k int, v numeric(10,2) PATH '$.a.b[0]."x y"' NOT NULL CHECK (v > 0), ts timestamptz EPOCH 'ms' DEFAULT now()$l$,
			$l$"A b" text COLLATE "C" PATH '$["it"]' DEFAULT 'x''y', j jsonb, a int[], CONSTRAINT c CHECK ("A b" <> 'q'), ts timestamptz EPOCH 'us' PATH '$.t'$l$,
			$l$k int OPTIONS (path '$.k'), /* a comment */ b bool, -- another
			ts timestamptz$l$];
		paths text[] := ARRAY['$.a.b', '$["a"][0]', '$', '$.a[12]."x y"', '$[''it'']'];
		arguments text[] := ARRAY['watermark_delay', 'idle_timeout', 'idle_close', 'max_future', 'start', 'on_error', 'on_error_limit',
			'staging_retention', 'options', 'event_time', 'include', 'format', 'topic', 'name', 'server', 'workers'];
		values_ text[] := ARRAY['5 seconds', '1 hour 30 minutes', '-3 days', '00:00:01.5', '{"0": 1200, "1": 0}', 'latest', 'earliest', '2025-01-01 00:00:00+00',
			'dead_letter', '{"idle_close": null, "staging_max_size": "10MB"}', '{partition,offset}', '100', 'ts', 'log', 's', 'json'];
		kafka text[] := ARRAY['bootstrap_servers', 'queued_min_messages', 'fetch_wait_max_ms', 'security_protocol', 'sasl_mechanism', 'ssl_ca_location',
			'debug', 'check_crcs', 'isolation_level', 'fetch_max_bytes', 'plugin_library_paths', 'broker_address_family'];
		kafka_values text[] := ARRAY['a:9092,b:9093', '[::1]:9092', '100000', 'SASL_SSL', 'SCRAM-SHA-256', 'true', 'v4', 'read_committed', '-1', '/etc/x.pem'];
		queries text[] := ARRAY[
			$q$SELECT k, count(*) AS n, sum(v) FILTER (WHERE v > 1) AS t FROM s GROUP BY tumble(ts, '10 seconds', origin => '2020-01-01', time_zone => 'Europe/Berlin'), k HAVING count(*) > 1$q$,
			$q$SELECT k % 7 AS m, max(v) AS h FROM s WHERE v BETWEEN 1 AND 9 GROUP BY hop(ts, '1 minute', every => '10 seconds'), k % 7$q$,
			$q$SELECT count(DISTINCT v) FROM s GROUP BY session(ts, '5 seconds')$q$,
			$q$SELECT k, avg(v) AS a FROM s GROUP BY cumulate(ts, '1 day', step => '1 hour'), k$q$];
		input text;
		name text;
		statement text;
	BEGIN
		FOR i IN 1 .. n LOOP
			CASE i % 6
				WHEN 0 THEN
					input := mutated(anyone(lists), anyone(lists));
					CALL try('columns', input, format('SELECT stream_engine.create_stream(%L, server => %L, topic => %L, columns => %L, event_time => %L)', 'x', 'tables', 'log', input, 'ts'));
				WHEN 1 THEN
					input := mutated(anyone(paths), anyone(paths));
					CALL try('path', input, format('CREATE FOREIGN TABLE x (a int OPTIONS (path %L)) SERVER tables OPTIONS (topic %L)', input, 'log'));
				WHEN 2 THEN
					name := anyone(arguments);
					input := mutated(anyone(values_), anyone(values_));
					SELECT format('SELECT stream_engine.create_stream(%s)', string_agg(format('%I => %L', key, value), ', ')) INTO statement
						FROM jsonb_each_text('{"name": "x", "server": "tables", "topic": "log", "columns": "k int, ts timestamptz", "event_time": "ts"}'::jsonb || jsonb_build_object(name, input));
					CALL try(name, input, statement);
				WHEN 3 THEN
					name := anyone(kafka);
					input := mutated(anyone(kafka_values), anyone(kafka_values));
					CALL try(name, input, format('CREATE SERVER x FOREIGN DATA WRAPPER stream_engine_kafka OPTIONS (%s)',
						CASE name WHEN 'bootstrap_servers' THEN format('%I %L', name, input) ELSE format('bootstrap_servers ''a:1'', %I %L', name, input) END));
				WHEN 4 THEN
					input := mutated(anyone(queries), anyone(queries));
					CALL try('query', input, format('SELECT * FROM stream_engine.validate_query(%L)', input));
				ELSE
					name := anyone(ARRAY['emit_interval', 'allowed_lateness', 'correction_horizon', 'start', 'late', 'emit', 'trigger_count', 'state_ttl', 'trigger_interval']);
					input := mutated(anyone(values_), anyone(values_));
					CALL try(name, input, format('SELECT stream_engine.create_query(''y'', %L, %I => %L, paused => true)', queries[1], name, input));
			END CASE;
			IF i % 200 = 0 THEN
				COMMIT;
			END IF;
		END LOOP;
	END $$;
	SELECT stream_engine.create_stream('s', server => 'tables', topic => 'log', columns => 'k int, v numeric, ts timestamptz', event_time => 'ts');
));

my $position = log_position($node);
my $tables   = 'SELECT count(*) FROM pg_class';
my $before   = $node->safe_psql('postgres', $tables);
my ($rc, $out, $err) = $node->psql('postgres', "SET client_min_messages = error; SET log_min_messages = panic; SELECT setseed(($seed % 1000000) / 1000000.0); CALL fuzz($n)");
is($err, '', 'the server has lived through all of it');
is($rc, 0, 'and the session, too');
is($node->safe_psql('postgres', $tables), $before, 'nothing is left of what was undone');
is($node->safe_psql('postgres', "SELECT DISTINCT ON (what, message) * FROM errors WHERE sqlstate ~ '^(XX|58)' LIMIT 20"), '', 'no internal error');
note($node->safe_psql('postgres', "SELECT count(*), count(*) FILTER (WHERE sqlstate = 'TAKEN'), count(DISTINCT sqlstate), count(DISTINCT message) FROM errors"));
cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM errors WHERE sqlstate = 'TAKEN'"), '>', $n / 50, 'much was taken');
unlike(log_since($node, $position), qr/PANIC|TRAP|was terminated by signal/, 'the log has no crash');

$node->stop('fast');
done_testing();
