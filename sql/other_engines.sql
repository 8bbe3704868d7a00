-- Rule: at the boundaries windows hold what those of other engines hold.  Each case is one of
-- their own tests, in other words, run through a query: records and watermarks in, closed
-- windows and late records out.  Where we differ on purpose the case says how.
SET timezone = 'UTC';
SET client_min_messages = warning;
CREATE SCHEMA other_engines;
SET search_path = other_engines, public;

CREATE TABLE log (topic text, partition int, "offset" bigint, timestamp timestamptz, key bytea, value bytea,
	PRIMARY KEY (topic, partition, "offset"));
CREATE SERVER engines FOREIGN DATA WRAPPER stream_engine_table OPTIONS ("table" 'other_engines.log', partitions '1');

-- A step is a record, MS or KEY:MS, or "<MS": from here on, everything before has come (the
-- watermark W).  A watermark w of Flink says that nothing up to w comes, that is W = w + 1.
-- An outcome is "KEY[START,END)=COUNT" for a window and "KEY@MS" for a late record.
CREATE TABLE engine_case (id int PRIMARY KEY, source text, win text, lateness interval DEFAULT '0', steps text[], theirs text[], ours text[]);
INSERT INTO engine_case (id, source, win, steps, theirs, ours) VALUES
	-- Flink: flink-streaming-java, TumblingEventTimeWindowsTest
	(1, 'Flink tumbling: testWindowAssignment', $$tumble(ts, '5 s')$$, '{0,4999,5000}', '{"[0,5000)=2","[5000,10000)=1"}', NULL),
	(2, 'Flink tumbling: testWindowAssignmentWithGlobalOffset', $$tumble(ts, '5 s', origin => '1970-01-01 00:00:00.1+00')$$,
		'{100,5099,5100}', '{"[100,5100)=2","[5100,10100)=1"}', NULL),
	(3, 'Flink tumbling: testWindowAssignmentWithNegativeGlobalOffset', $$tumble(ts, '5 s', origin => '1969-12-31 23:59:59.9+00')$$,
		'{0,4899,4900}', '{"[-100,4900)=2","[4900,9900)=1"}', NULL),
	(4, 'Flink tumbling: testTimeUnits', $$tumble(ts, '5 s', origin => '1970-01-01 00:00:01+00')$$,
		'{1000,5999,6000}', '{"[1000,6000)=2","[6000,11000)=1"}', NULL),
	-- SlidingEventTimeWindowsTest
	(5, 'Flink sliding: testWindowAssignment', $$hop(ts, '5 s', every => '1 s')$$, '{0,4999,5000}',
		'{"[-4000,1000)=1","[-3000,2000)=1","[-2000,3000)=1","[-1000,4000)=1","[0,5000)=2","[1000,6000)=2","[2000,7000)=2","[3000,8000)=2","[4000,9000)=2","[5000,10000)=1"}', NULL),
	(6, 'Flink sliding: testWindowAssignmentWithOffset', $$hop(ts, '5 s', every => '1 s', origin => '1970-01-01 00:00:00.1+00')$$, '{100,5099,5100}',
		'{"[-3900,1100)=1","[-2900,2100)=1","[-1900,3100)=1","[-900,4100)=1","[100,5100)=2","[1100,6100)=2","[2100,7100)=2","[3100,8100)=2","[4100,9100)=2","[5100,10100)=1"}', NULL),
	(7, 'Flink sliding: testWindowAssignmentWithNegativeOffset', $$hop(ts, '5 s', every => '1 s', origin => '1969-12-31 23:59:59.9+00')$$, '{0,4899,4900}',
		'{"[-4100,900)=1","[-3100,1900)=1","[-2100,2900)=1","[-1100,3900)=1","[-100,4900)=2","[900,5900)=2","[1900,6900)=2","[2900,7900)=2","[3900,8900)=2","[4900,9900)=1"}', NULL),
	(8, 'Flink sliding: testTimeUnits', $$hop(ts, '5 s', every => '1 s', origin => '1970-01-01 00:00:00.5+00')$$, '{100,5499,5100}',
		'{"[-4500,500)=1","[-3500,1500)=1","[-2500,2500)=1","[-1500,3500)=1","[-500,4500)=1","[500,5500)=2","[1500,6500)=2","[2500,7500)=2","[3500,8500)=2","[4500,9500)=2"}', NULL),
	-- WindowOperatorTest
	(9, 'Flink operator: testDropDueToLatenessTumbling', $$tumble(ts, '2 s')$$,
		'{k:1000,<1986,k:1980,<2000,k:1998,k:2001,<3000,<4000}', '{"k[0,2000)=2","k[2000,4000)=1",k@1998}', NULL),
	(10, 'Flink operator: testDropDueToLatenessSliding', $$hop(ts, '3 s', every => '1 s')$$,
		'{k2:1000,<2000,k2:2000,<3001,k1:3001,k2:2400,k2:2400,k1:3001,k2:3900,<6001,k1:3001}',
		'{"k2[-1000,2000)=1","k2[0,3000)=2","k2[1000,4000)=5","k1[1000,4000)=2","k2[2000,5000)=4","k1[2000,5000)=2","k2[3000,6000)=1","k1[3000,6000)=2",k1@3001}', NULL),
	(11, 'Flink operator: testDropDueToLatenessSessionZeroLateness', $$session(ts, gap => '3 s')$$,
		'{k:1000,<2000,k:2000,<4999,k:4500,k:8500,<7401,k:7000,<11502,k:11600,<14601,k:10000,k:14500,<20001,<100001}',
		'{"k[1000,11500)=5","k[11600,14600)=1",k@10000,"k[14500,17500)=1"}', NULL),
	-- after 10000 a second late record, which must not find the first
	(12, 'Flink operator: testDropDueToLatenessSessionZeroLatenessPurgingTrigger', $$session(ts, gap => '3 s')$$,
		'{k:1000,<2000,k:2000,<4999,k:4500,k:8500,<7401,k:7000,<11502,k:11600,<14601,k:10000,k:10100,k:14500,<20001}',
		'{"k[1000,11500)=5","k[11600,14600)=1",k@10000,k@10100,"k[14500,17500)=1"}', NULL),
	-- Spark: DataFrameTimeWindowingSuite, seconds of 2016-03-27 19:39
	(20, 'Spark window: record at window start', $$tumble(ts, '10 s')$$, '{30000}', '{"[30000,40000)=1"}', NULL),
	(21, 'Spark window: negative start time', $$tumble(ts, '10 s', origin => '1969-12-31 23:59:55+00')$$, '{30000,25000}', '{"[25000,35000)=2"}', NULL),
	(22, 'Spark window: groupBy statement', $$tumble(ts, '10 s')$$, '{34000,56000,27000}', '{"[20000,30000)=1","[30000,40000)=1","[50000,60000)=1"}', NULL),
	-- its windows of 3 s begin at multiples of 3 s since 1970, as ours; 19:39:00 is one
	(23, 'Spark window: sliding window grouping', $$hop(ts, '10 s', every => '3 s')$$, '{34000,56000,27000}',
		'{"[18000,28000)=1","[21000,31000)=1","[24000,34000)=1","[27000,37000)=2","[30000,40000)=1","[33000,43000)=1","[48000,58000)=1","[51000,61000)=1","[54000,64000)=1"}', NULL),
	(24, 'Spark window: negative timestamps', $$tumble(ts, '10 s', origin => '1970-01-01 00:00:05+00')$$, '{2000,12000}', '{"[-5000,5000)=1","[5000,15000)=1"}', NULL),
	(25, 'Spark window: millisecond precision sliding windows', $$hop(ts, '200 ms', every => '40 ms')$$, '{410,620,715}',
		'{"[240,440)=1","[280,480)=1","[320,520)=1","[360,560)=1","[400,600)=1","[440,640)=1","[480,680)=1","[520,720)=2","[560,760)=2","[600,800)=2","[640,840)=1","[680,880)=1"}', NULL),
	-- DataFrameSessionWindowingSuite
	(26, 'Spark session: record at window start', $$session(ts, gap => '10 s')$$, '{30000}', '{"[30000,40000)=1"}', NULL),
	(27, 'Spark session: groupBy statement', $$session(ts, gap => '10 s')$$, '{34000,56000,27000}', '{"[27000,44000)=2","[56000,66000)=1"}', NULL),
	(28, 'Spark session: multiple keys', $$session(ts, gap => '10 s')$$, '{a:34000,a:39000,a:56000,a:64000,b:27000}',
		'{"b[27000,37000)=1","a[34000,49000)=2","a[56000,74000)=2"}', NULL),
	(29, 'Spark session: keys overlapped with sessions', $$session(ts, gap => '10 s')$$, '{a:34000,b:39000,a:40000,b:45000,b:27000}',
		'{"b[27000,37000)=1","a[34000,50000)=2","b[39000,55000)=2"}', NULL),
	-- Kafka Streams: TimeWindowsTest, KStreamSessionWindowAggregateProcessorTest; its sessions end
	-- with their last record, ours a gap later, so only the counts are theirs
	(40, 'Kafka Streams: shouldComputeWindowsForHoppingWindows', $$hop(ts, '12 ms', every => '5 ms')$$, '{21}', '{"[10,22)=1","[15,27)=1","[20,32)=1"}', NULL),
	(41, 'Kafka Streams: shouldComputeWindowsForBarelyOverlappingHoppingWindows', $$hop(ts, '6 ms', every => '5 ms')$$, '{7}', '{"[5,11)=1"}', NULL),
	(42, 'Kafka Streams: shouldComputeWindowsForTumblingWindows', $$tumble(ts, '12 ms')$$, '{21}', '{"[12,24)=1"}', NULL),
	(43, 'Kafka Streams: shouldMergeSessions', $$session(ts, gap => '5 min')$$, '{m:0,m:300001,m:150000}', '{"m[0,600001)=3"}', NULL),
	(44, 'Kafka Streams: shouldUpdateSessionIfTheSameTime', $$session(ts, gap => '5 min')$$, '{m:0,m:0}', '{"m[0,300000)=2"}', NULL),
	(45, 'Kafka Streams: shouldHaveMultipleSessionsForSameIdWhenTimestampApartBySessionGap', $$session(ts, gap => '5 min')$$,
		'{m:0,m:300001,m:300001,m:600002,m:600002,m:600002}', '{"m[0,300000)=1","m[300001,600001)=2","m[600002,900002)=3"}', NULL),
	(46, 'Kafka Streams: shouldHandleMultipleSessionsAndMerging', $$session(ts, gap => '5 min')$$,
		'{a:0,b:0,c:0,d:0,d:150000,a:300001,b:300001,a:450001,c:450001}',
		'{"a[0,300000)=1","b[0,300000)=1","c[0,300000)=1","d[0,450000)=2","b[300001,600001)=1","a[300001,750001)=2","c[450001,750001)=1"}', NULL),
	-- it takes a record for late when time has passed its last record; ours may still be joined, so it is on time
	(47, 'Kafka Streams: shouldLogAndMeterWhenSkippingLateRecordWithZeroGrace', $$session(ts, gap => '10 ms')$$,
		'{d:0,<0,t:0,d:1,<1,l:0}', '{"d[0,11)=2","t[0,10)=1",l@0}', '{"d[0,11)=2","t[0,10)=1","l[0,10)=1"}'),
	-- Beam: FixedWindowsTest, SlidingWindowsTest, SessionsTest
	(60, 'Beam fixed: testSimpleFixedWindow', $$tumble(ts, '10 ms')$$, '{1,2,5,9,10,11,100}', '{"[0,10)=4","[10,20)=2","[100,110)=1"}', NULL),
	(61, 'Beam fixed: testFixedOffsetWindow', $$tumble(ts, '10 ms', origin => '1970-01-01 00:00:00.005+00')$$, '{1,2,5,9,10,11,100}',
		'{"[-5,5)=2","[5,15)=4","[95,105)=1"}', NULL),
	(62, 'Beam fixed: testTimeUnit', $$tumble(ts, '10 s', origin => '1970-01-01 00:00:05+00')$$, '{1,2,1000,5000,5001,10000}',
		'{"[-5000,5000)=3","[5000,15000)=3"}', NULL),
	(63, 'Beam sliding: testSimple', $$hop(ts, '10 ms', every => '5 ms')$$, '{1,2,5,9,10,11}', '{"[-5,5)=2","[0,10)=4","[5,15)=4","[10,20)=2"}', NULL),
	(64, 'Beam sliding: testSlightlyOverlapping', $$hop(ts, '7 ms', every => '5 ms')$$, '{1,2,5,9,10,11}', '{"[-5,2)=1","[0,7)=3","[5,12)=4","[10,17)=2"}', NULL),
	(65, 'Beam sliding: testOffset', $$hop(ts, '10 ms', every => '5 ms', origin => '1970-01-01 00:00:00.002+00')$$, '{1,2,5,9,10,11}',
		'{"[-8,2)=1","[-3,7)=3","[2,12)=5","[7,17)=3"}', NULL),
	(66, 'Beam sliding: testTimeUnit', $$hop(ts, '10 s', every => '5 s')$$, '{1,2,1000,5000,5001,10000}',
		'{"[-5000,5000)=3","[0,10000)=5","[5000,15000)=3","[10000,20000)=1"}', NULL),
	(67, 'Beam sessions: testConsecutive', $$session(ts, gap => '10 ms')$$, '{1,2,5,9,100,101}', '{"[1,19)=4","[100,111)=2"}', NULL),
	(68, 'Beam sessions: testMerging', $$session(ts, gap => '10 ms')$$, '{1,15,30,100,101,95,22,10}', '{"[1,40)=5","[95,111)=3"}', NULL),
	(69, 'Beam sessions: testTimeUnit', $$session(ts, gap => '1 s')$$, '{1,2,1000,5000,5001,10000}', '{"[1,2000)=3","[5000,6001)=2","[10000,11000)=1"}', NULL),
	-- exactly a gap apart: Flink, Spark and Kafka Streams join them, as we do; Beam does not
	(70, 'Beam sessions: testSimple', $$session(ts, gap => '10 ms')$$, '{0,10,101}', '{"[0,10)=1","[10,20)=1","[101,111)=1"}', '{"[0,20)=2","[101,111)=1"}');

-- With allowed lateness, WindowOperatorTest again; its outputs add up to our last revision.
INSERT INTO engine_case (id, source, win, lateness, steps, theirs) VALUES
	(80, 'Flink operator: testLateness', $$tumble(ts, '2 s')$$, '500 ms',
		'{k:500,<1501,k:1300,<2301,k:1997,<6001,k:1998,<7001}', '{"k[0,2000)=3",k@1998}'),
	-- 10000 joins the session that is kept, though the one before it has gone: windows that overlap
	(81, 'Flink operator: testDropDueToLatenessSessionWithLateness', $$session(ts, gap => '3 s')$$, '10 ms',
		'{k:1000,<2000,k:2000,<4999,k:4500,k:8500,<7401,k:7000,<11502,k:11600,<14601,k:10000,k:14500,<20001,<100001}', '{"k[1000,11500)=5","k[10000,17500)=3"}'),
	(82, 'Flink operator: testDropDueToLatenessSessionWithHugeLateness', $$session(ts, gap => '3 s')$$, '10 s',
		'{k:1000,<2000,k:2000,<4999,k:4500,k:8500,<7401,k:7000,<11502,k:11600,<14601,k:10000,k:14500,<20001,<100001}', '{"k[1000,17500)=8"}');
CREATE FUNCTION at_ms(ms text) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$ SELECT to_timestamp(0) + ms::numeric::float8 * interval '1 ms' $$;
CREATE FUNCTION ms(t timestamptz) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$ SELECT trim_scale(extract(epoch FROM t) * 1000) $$;

-- The delay keeps the watermark where the steps put it.
\set ECHO errors
SELECT format($$
	DO $do$ BEGIN PERFORM stream_engine.create_stream('s%1$s', server => 'engines', topic => 's%1$s',
		columns => 'ts timestamptz EPOCH ''us'', k text', event_time => 'ts', watermark_delay => '20 days', staging_retention => '0');
	PERFORM stream_engine.create_query('q%1$s', %2$L, allowed_lateness => %3$L); END $do$ $$,
	id, format('SELECT k, count(*) AS n FROM s%s GROUP BY %s, k', id, win), lateness)
FROM engine_case ORDER BY id \gexec

\getenv src PG_ABS_SRCDIR
\set until :src '/sql/until.inc'
\i :until
-- All cases take a step at a time; a step of records waits until it is committed, one of the
-- watermark until that stands there.  The last one closes all windows.
CREATE PROCEDURE play() LANGUAGE plpgsql AS $$
DECLARE
	this_step int;
	c record;
BEGIN
	FOR this_step IN 1 .. (SELECT max(cardinality(steps)) + 1 FROM engine_case) LOOP
		FOR c IN SELECT id, COALESCE(steps[this_step], '<1000000000') AS step FROM engine_case WHERE this_step <= cardinality(steps) + 1 LOOP
			IF c.step ^@ '<' THEN
				PERFORM stream_engine.advance_watermark('s' || c.id, at_ms(substr(c.step, 2)));
			ELSE
				INSERT INTO log SELECT 's' || c.id, 0, count(*), NULL, NULL, convert_to(json_build_object('ts',
					round(substring(c.step FROM '-?\d+$')::numeric * 1000)::bigint, 'k', substring(c.step FROM '^(.*):'))::text, 'UTF8')
				FROM log WHERE topic = 's' || c.id;
			END IF;
		END LOOP;
		COMMIT;
		FOR c IN SELECT id, COALESCE(steps[this_step], '<1000000000') AS step FROM engine_case WHERE this_step <= cardinality(steps) + 1 LOOP
			IF c.step ^@ '<' THEN
				CALL until(format('watermark >= %L FROM stream_engine.stat_queries WHERE query = %L::regclass', at_ms(substr(c.step, 2)), 'q' || c.id));
			ELSE
				CALL stream_engine.wait(format('other_engines.q%s', c.id), '1 minute');
			END IF;
		END LOOP;
	END LOOP;
END $$;
CALL play();

SELECT string_agg(format('SELECT %s AS id, window_start, window_end, k, n FROM q%1$s WHERE is_final', id), ' UNION ALL ') AS results FROM engine_case \gset
CREATE TEMP VIEW results AS :results;
SELECT string_agg(format('SELECT %s AS id, window_start, window_end, k, n FROM q%1$s_batch', id), ' UNION ALL ') AS batches
	FROM engine_case WHERE win !~ '^session' \gset
CREATE TEMP VIEW batches AS :batches;
\set ECHO all
CREATE TEMP VIEW outcome AS
	SELECT id, ARRAY(
		SELECT format('%s[%s,%s)=%s', k, ms(window_start), ms(window_end), n) FROM results r WHERE r.id = c.id
		UNION ALL
		SELECT format('%s@%s', convert_from(l.payload, 'UTF8')::json ->> 'k', ms(l.event_time)) FROM stream_engine.late_events l
			WHERE l.query = ('q' || c.id)::regclass
		ORDER BY 1) AS got
	FROM engine_case c;

-- what came out, and whether it is theirs or, where we differ, ours
SELECT c.id, c.source, CASE WHEN ours IS NULL THEN 'the same' ELSE 'differs on purpose' END AS verdict, o.got,
	o.got = ARRAY(SELECT unnest(COALESCE(ours, theirs)) ORDER BY 1) AS as_expected
FROM engine_case c JOIN outcome o USING (id) ORDER BY 1;

-- every record is in the books
SELECT count(*) FILTER (WHERE decoded <> counted + late) AS unaccounted, sum(decoded) AS decoded, sum(late) AS late, sum(late_assignments) AS late_assignments
FROM stream_engine.stat_queries WHERE query IN (SELECT ('q' || id)::regclass FROM engine_case);
-- without late records the batch gives the same
SELECT * FROM results WHERE id IN (SELECT id FROM batches) AND id NOT IN (9, 10, 80)
EXCEPT ALL SELECT * FROM batches;
SELECT * FROM batches WHERE id NOT IN (9, 10, 80) EXCEPT ALL SELECT * FROM results;

-- what others refuse (Flink, Kafka Streams: testInvalidParameters, advanceIntervalMustNotBeLargerThanWindowSize;
-- Spark: multiple time windows in a single operator), and windows with holes, which Beam allows (testElidings)
SELECT stream_engine.validate_query('SELECT count(*) FROM s1 GROUP BY tumble(ts, ''-1 s'')');
SELECT stream_engine.validate_query('SELECT count(*) FROM s1 GROUP BY hop(ts, ''-2 s'', every => ''1 s'')');
SELECT stream_engine.validate_query('SELECT count(*) FROM s1 GROUP BY hop(ts, ''2 s'', every => ''-1 s'')');
SELECT stream_engine.validate_query('SELECT count(*) FROM s1 GROUP BY hop(ts, ''3 ms'', every => ''10 ms'')');
SELECT stream_engine.validate_query('SELECT count(*) FROM s1 GROUP BY cumulate(ts, ''5 s'', step => ''2 s'')');
SELECT stream_engine.validate_query('SELECT count(*) FROM s1 GROUP BY session(ts, gap => ''0'')');
SELECT stream_engine.validate_query('SELECT count(*) FROM s1 GROUP BY session(ts, gap => ''-1 s'')');
SELECT stream_engine.validate_query('SELECT count(*) FROM s1 GROUP BY tumble(ts, ''10 s''), tumble(ts, ''15 s'')');
-- records without a time: Spark leaves them out, here they are dead letters
INSERT INTO log SELECT 's20', 0, 1, NULL, NULL, '{"ts": null, "k": "x"}';
CALL stream_engine.wait('s20', '1 minute');
SELECT "offset", reason, message FROM stream_engine.dead_letters WHERE stream = 's20'::regclass;

SET client_min_messages = error;
DROP SERVER engines CASCADE;
DROP SCHEMA other_engines CASCADE;
