-- Rule: Flink's window tests give here what they give there.  Where we differ on purpose the case
-- says how.  (sql/other_engines has the assigners and the cases of late records.)
\getenv src PG_ABS_SRCDIR
\set engines :src '/sql/engines.inc'
\set ECHO none
\i :engines
\set ECHO all

-- SlicingWindowAggOperatorTest, UnslicingWindowAggOperatorTest: sum and count
INSERT INTO engine_case (id, source, win, agg, steps, theirs) VALUES
	(1, 'slicing: testEventTimeHoppingWindows', $$hop(ts, '3 s', every => '1 s')$$, $$sum(v) || '/' || count(*)$$,
		'{a2:3999,a2:3000,a1:20,a1:0,a1:999,a2:1998,a2:1999,a2:1000,<1000,<2000,<3000,<4000,a2:3500,<5000,a1:2999,<6000,<7000,<8000}',
		'{"a1[-2000,1000)=3/3","a1[-1000,2000)=3/3","a2[-1000,2000)=3/3","a1[0,3000)=3/3","a2[0,3000)=3/3","a2[1000,4000)=5/5","a2[2000,5000)=3/3","a2[3000,6000)=3/3",a1@2999}'),
	(2, 'slicing: testEventTimeCumulativeWindows', $$cumulate(ts, '3 s', step => '1 s')$$, $$sum(v) || '/' || count(*)$$,
		'{a2:2999,a2:3000,a1:20,a1:0,a1:999,a2:1998,a2:1999,a2:1000,<1000,<2000,a2:1000,<2000,<3000,<4000,a1:3500=2,<5000,a1:2999,<6000,<7000,<8000}',
		'{"a1[0,1000)=3/3","a1[0,2000)=3/3","a2[0,2000)=3/3","a1[0,3000)=3/3","a2[0,3000)=5/5","a2[3000,4000)=1/1","a2[3000,5000)=1/1","a1[3000,5000)=2/1","a2[3000,6000)=1/1","a1[3000,6000)=2/1",a1@2999}'),
	(3, 'slicing: testEventTimeTumblingWindows', $$tumble(ts, '3 s')$$, $$sum(v) || '/' || count(*)$$,
		'{a2:3999,a2:3000,a1:20,a1:0,a1:999,a2:1998,a2:1999,a2:1000,<1000,<2000,<3000,<4000,a1:2500,<5000,a2:2999,<6000,<7000,<8000}',
		'{"a1[0,3000)=3/3","a2[0,3000)=3/3","a2[3000,6000)=2/2",a1@2500,a2@2999}'),
	(4, 'unslicing: testEventTimeSessionWindows', $$session(ts, gap => '3 s')$$, $$sum(v) || '/' || count(*)$$,
		'{a2:3999,a2:3000,a1:20,a1:0,a1:999,a2:1998,a2:1999,a2:1000,<1000,<2000,<3000,<4000,a2:3500,<5000,a1:999,<6000,<7000,<8000,<9000}',
		'{"a1[0,3999)=3/3","a2[1000,6999)=6/6",a1@999}'),
	-- WindowOperatorTest
	(5, 'operator: testSessionWindows', $$session(ts, gap => '3 s')$$, 'sum(v)',
		'{a2:0=1,a2:1000=2,a2:2500=3,a1:10=1,a1:1000=2,a1:2500=3,a2:5501=4,a2:6000=5,a2:6000=5,a2:6050=6,<12001,a2:15000=10,a2:15000=20,<18000}',
		'{"a1[10,5500)=6","a2[0,5500)=6","a2[5501,9050)=20","a2[15000,18000)=30"}'),
	(6, 'operator: testSessionWindowsWithCountTrigger, the session that a record makes of two', $$session(ts, gap => '3 s')$$, 'sum(v)',
		'{a2:0=1,a2:1000=2,a2:2500=3,a2:3500=4,a1:10=1,a1:1000=2,a1:2500=3,a1:6000=1,a1:6500=2,a1:7000=3,a1:4500=10,<20000}',
		'{"a2[0,6500)=10","a1[10,10000)=22"}'),
	(7, 'operator: testTumblingEventTimeWindows', $$tumble(ts, '3 s')$$, 'sum(v)',
		'{a2:3999,a2:3000,a1:20,a1:0,a1:999,a2:1998,a2:1999,a2:1000,<1000,<2000,<3000,<4000,<5000,<6000,<7000,<8000}',
		'{"a1[0,3000)=3","a2[0,3000)=3","a2[3000,6000)=2"}');
INSERT INTO engine_case (id, source, win, agg, lateness, steps, theirs) VALUES
	(8, 'operator: testCleanupTimerWithEmptyListStateForTumblingWindows2', $$tumble(ts, '2 s')$$, 'sum(v)', '100 ms', '{k:1000,<1600,<2000,<2101,<5001}', '{"k[0,2000)=1"}'),
	(9, 'operator: a record at the last moment of allowed lateness, and one moment later', $$tumble(ts, '2 s')$$, 'sum(v)', '500 ms',
		'{k:500,<2499,k:1000,<2500,k:1001}', '{"k[0,2000)=2",k@1001}');

-- GroupWindowITCase
INSERT INTO engine_case (id, source, win, agg, delay, lateness, shows, steps, theirs) VALUES
	(20, 'group window: testEventTimeSlidingWindow', $$hop(ts, '5 ms', every => '4 ms')$$, $$count(1) || '/' || sum(1) || '/' || count(v) || '/' || count(DISTINCT v)$$, '10 ms', '0', 'end',
		'{Hi:1=1,Hallo:2=2,Hello:3=2,Hello:4=5,Hello:7=3,Hello:6=5,Hello world:8=3,Hello world:16=4,32=4}',
		'{"Hallo[0,5)=1/1/1/1","Hello world[4,9)=1/1/1/1","Hello world[8,13)=1/1/1/1","Hello world[12,17)=1/1/1/1","Hello world[16,21)=1/1/1/1","Hello[0,5)=2/2/2/2","Hello[4,9)=3/3/3/2","Hi[0,5)=1/1/1/1","null[28,33)=1/1/1/1","null[32,37)=1/1/1/1"}'),
	(22, 'group window: testEventTimeSessionWindow', $$session(ts, gap => '5 ms')$$, $$count(1) || '/' || sum(v)$$, '10 ms', '0', 'end',
		'{Hello:1=1,Hello:2=2,Hello:8=8,Hello World:9=9,Hello:4=4,Hello:16=16}', '{"Hello World[9,14)=1/9","Hello[1,13)=4/15","Hello[16,21)=1/16"}'),
	(23, 'group window: testEventTimeTumblingWindowWithAllowLateness', $$tumble(ts, '5 ms')$$,
		$$count(DISTINCT ts) || '/' || count(v) || '/' || avg(v)::int || '/' || min(v) || '/' || max(v) || '/' || sum(v)$$, '0', '10 ms', 'end',
		'{Hi:1=1,Hello:2=2,Hello:4=2,Hello world:8=3,Hello:4=3,Hello world:16=3,Hello world:9=4,Hi:3=1}',
		'{"Hello world[5,10)=2/2/4/3/4/7","Hello world[15,20)=1/1/3/3/3/3","Hello[0,5)=2/3/2/2/3/7","Hi[0,5)=1/1/1/1/1/1",Hi@3}'),
	-- BoundedOutOfOrdernessWatermarksTest: 12339 is behind the watermark of 12345, 12340 is not
	(24, 'bounded out of orderness: testWatermarkAfterEventWithLowerTimestamp', $$tumble(ts, '1 ms')$$, 'count(*)', '5 ms', '0', 'closed',
		'{a:12345,a:12340,a:12339,a:12346}', '{"a[12340,12341)=1",a@12339}');
CALL make_cases();
CALL play_cases();
SELECT id, source, verdict, cardinality(got) AS rows, CASE WHEN verdict <> 'the same' THEN got END AS ours FROM verdict ORDER BY id;
-- records for windows of which some had closed: 3500 in the first two cases
SELECT query, decoded, counted, late, late_assignments FROM stream_engine.stat_queries WHERE query IN ('q1'::regclass, 'q2'::regclass) ORDER BY 1;

-- WindowAggregateITCase.  Its data, and a watermark one second behind; 00:00:04 comes twice, the
-- second time behind the watermark.
INSERT INTO outbox (topic, value) SELECT 't1', json_build_object('ts', '2020-10-10 00:00:' || r[1], 'i', r[2]::int, 'd', r[3]::float8,
	'f', r[4]::float4, 'bigdec', r[5]::numeric, 'string', r[6], 'name', r[7])::text
FROM (VALUES (1, ARRAY['01', '1', '1', '1', '1.11', 'Hi', 'a']), (2, ARRAY['02', '2', '2', '2', '2.22', 'Comment#1', 'a']),
	(3, ARRAY['03', '2', '2', '2', '2.22', 'Comment#1', 'a']), (4, ARRAY['04', '5', '5', '5', '5.55', NULL, 'a']),
	(5, ARRAY['07', '3', '3', '3', NULL, 'Hello', 'b']), (6, ARRAY['06', '6', '6', '6', '6.66', 'Hi', 'b']),
	(7, ARRAY['08', '3', NULL, '3', '3.33', 'Comment#2', 'a']), (8, ARRAY['04', '5', '5', NULL, '5.55', 'Hi', 'a']),
	(9, ARRAY['16', '4', '4', '4', '4.44', 'Hi', 'b']), (10, ARRAY['32', '7', '7', '7', '7.77', NULL, NULL]),
	(11, ARRAY['34', '1', '3', '3', '3.33', 'Comment#3', 'b'])) AS d (i, r) ORDER BY i;
SELECT make_topic('t1') AS t1 \gset
CALL deliver();
SELECT stream_engine.create_stream('t1', server => 'engines_1', topic => :'t1', event_time => 'ts', watermark_delay => '1 s', staging_retention => '0',
	columns => 'ts timestamptz, i int, d float8, f float4, bigdec numeric(10,2), string text, name text');
CREATE TABLE itcase (name text, keys text, win text, theirs text[]);
INSERT INTO itcase VALUES
	('testEventTimeTumbleWindow', 'name', $$tumble(ts, '5 s')$$,
		'{"a,00:00:00,00:00:05,4,11.10,5,1,2","a,00:00:05,00:00:10,1,3.33,null,3,1","b,00:00:05,00:00:10,2,6.66,6,3,2","b,00:00:15,00:00:20,1,4.44,4,4,1","b,00:00:30,00:00:35,1,3.33,3,3,1","null,00:00:30,00:00:35,1,7.77,7,7,0"}'),
	('testTumbleWindowGroupOnWindowOnly', NULL, $$tumble(ts, '5 s')$$,
		'{"null,00:00:00,00:00:05,4,11.10,5,1,2","null,00:00:05,00:00:10,3,9.99,6,3,3","null,00:00:15,00:00:20,1,4.44,4,4,1","null,00:00:30,00:00:35,2,11.10,7,3,1"}'),
	('testEventTimeHopWindow', 'name', $$hop(ts, '10 s', every => '5 s')$$,
		'{"a,23:59:55,00:00:05,4,11.10,5,1,2","a,00:00:00,00:00:10,6,19.98,5,1,3","a,00:00:05,00:00:15,1,3.33,null,3,1","b,00:00:00,00:00:10,2,6.66,6,3,2","b,00:00:05,00:00:15,2,6.66,6,3,2","b,00:00:10,00:00:20,1,4.44,4,4,1","b,00:00:15,00:00:25,1,4.44,4,4,1","b,00:00:25,00:00:35,1,3.33,3,3,1","b,00:00:30,00:00:40,1,3.33,3,3,1","null,00:00:25,00:00:35,1,7.77,7,7,0","null,00:00:30,00:00:40,1,7.77,7,7,0"}'),
	('testEventTimeHopWindow_GroupingSets, the total', NULL, $$hop(ts, '10 s', every => '5 s')$$,
		'{"null,23:59:55,00:00:05,4,11.10,5,1,2","null,00:00:00,00:00:10,8,26.64,6,1,4","null,00:00:05,00:00:15,3,9.99,6,3,3","null,00:00:10,00:00:20,1,4.44,4,4,1","null,00:00:15,00:00:25,1,4.44,4,4,1","null,00:00:25,00:00:35,2,11.10,7,3,1","null,00:00:30,00:00:40,2,11.10,7,3,1"}'),
	('testEventTimeCumulateWindow', 'name', $$cumulate(ts, '15 s', step => '5 s')$$,
		'{"a,00:00:00,00:00:05,4,11.10,5,1,2","a,00:00:00,00:00:10,6,19.98,5,1,3","a,00:00:00,00:00:15,6,19.98,5,1,3","b,00:00:00,00:00:10,2,6.66,6,3,2","b,00:00:00,00:00:15,2,6.66,6,3,2","b,00:00:15,00:00:20,1,4.44,4,4,1","b,00:00:15,00:00:25,1,4.44,4,4,1","b,00:00:15,00:00:30,1,4.44,4,4,1","b,00:00:30,00:00:35,1,3.33,3,3,1","b,00:00:30,00:00:40,1,3.33,3,3,1","b,00:00:30,00:00:45,1,3.33,3,3,1","null,00:00:30,00:00:35,1,7.77,7,7,0","null,00:00:30,00:00:40,1,7.77,7,7,0","null,00:00:30,00:00:45,1,7.77,7,7,0"}'),
	('testEventTimeTumbleWindowWithOffset', 'name', $$tumble(ts, '1 day', origin => '1970-01-01 08:00+00')$$,
		'{"a,08:00:00,08:00:00,6,19.98,5,1,3","b,08:00:00,08:00:00,4,14.43,6,3,3","null,08:00:00,08:00:00,1,7.77,7,7,0"}'),
	('testEventTimeTumbleWindowWithNegativeOffset', 'name', $$tumble(ts, '1 day', origin => '1969-12-31 16:00+00')$$,
		'{"a,16:00:00,16:00:00,6,19.98,5,1,3","b,16:00:00,16:00:00,4,14.43,6,3,3","null,16:00:00,16:00:00,1,7.77,7,7,0"}'),
	('testEventTimeHopWindowWithOffset', 'name', $$hop(ts, '1 day', every => '12 hours', origin => '1970-01-01 08:00+00')$$,
		'{"a,08:00:00,08:00:00,6,19.98,5,1,3","a,20:00:00,20:00:00,6,19.98,5,1,3","b,08:00:00,08:00:00,4,14.43,6,3,3","b,20:00:00,20:00:00,4,14.43,6,3,3","null,08:00:00,08:00:00,1,7.77,7,7,0","null,20:00:00,20:00:00,1,7.77,7,7,0"}'),
	('testEventTimeHopWindowWithNegativeOffset', 'name', $$hop(ts, '1 day', every => '12 hours', origin => '1969-12-31 16:00+00')$$,
		'{"a,04:00:00,04:00:00,6,19.98,5,1,3","a,16:00:00,16:00:00,6,19.98,5,1,3","b,04:00:00,04:00:00,4,14.43,6,3,3","b,16:00:00,16:00:00,4,14.43,6,3,3","null,04:00:00,04:00:00,1,7.77,7,7,0","null,16:00:00,16:00:00,1,7.77,7,7,0"}'),
	('testEventTimeCumulateWindowWithOffset', 'name', $$cumulate(ts, '1 day', step => '12 hours', origin => '1970-01-01 08:00+00')$$,
		'{"a,08:00:00,08:00:00,6,19.98,5,1,3","b,08:00:00,08:00:00,4,14.43,6,3,3","null,08:00:00,08:00:00,1,7.77,7,7,0"}'),
	('testEventTimeCumulateWindowWithNegativeOffset', 'name', $$cumulate(ts, '1 day', step => '12 hours', origin => '1969-12-31 16:00+00')$$,
		'{"a,16:00:00,04:00:00,6,19.98,5,1,3","a,16:00:00,16:00:00,6,19.98,5,1,3","b,16:00:00,04:00:00,4,14.43,6,3,3","b,16:00:00,16:00:00,4,14.43,6,3,3","null,16:00:00,04:00:00,1,7.77,7,7,0","null,16:00:00,16:00:00,1,7.77,7,7,0"}');
SELECT count(stream_engine.create_query(format('it_%s', row_number), format(
	'SELECT %s count(*) AS n, sum(bigdec) AS s, max(d) AS d, min(f) AS f, count(DISTINCT string) AS strings FROM t1 GROUP BY %s %s', name || ',', win, ', ' || name)))
FROM (SELECT win, keys AS name, row_number() OVER () FROM itcase) AS c;
CALL stream_engine.wait('t1', '1 minute');
SELECT stream_engine.advance_watermark('t1', '2020-10-12');
CALL until($$ min(watermark) >= '2020-10-12' FROM stream_engine.stat_queries WHERE stream = 't1'::regclass $$);
CREATE FUNCTION it_rows(query regclass) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	got text[];
BEGIN
	EXECUTE format($q$SELECT array_agg(concat_ws(',', COALESCE(to_jsonb(q) ->> 'name', 'null'), window_start::time, window_end::time, n, s, COALESCE(d::text, 'null'), f, strings)
		ORDER BY window_start, window_end, to_jsonb(q) ->> 'name') FROM %s AS q$q$, query) INTO got;
	RETURN got;
END $$;
SELECT name, cardinality(got) AS rows, got @> theirs AND theirs @> got AND cardinality(got) = cardinality(theirs) AS the_same,
	CASE WHEN NOT (got @> theirs AND theirs @> got) THEN got END AS but
FROM (SELECT *, it_rows(format('it_%s', row_number() OVER ())::regclass) AS got FROM itcase) AS c;
-- the late record missed the windows that had closed, and was late where there was no other
SELECT query, counted, late, late_assignments FROM stream_engine.stat_queries WHERE stream = 't1'::regclass AND (late > 0 OR late_assignments > 0) ORDER BY query::text;

\set ECHO none
\set ends :src '/sql/engines_end.inc'
\i :ends
