-- Rule: other engines' own tests that look at the results after each step give here, after the same step,
-- what they give there: what is new or changed, what has gone, what is late, where the watermark is.
\getenv src PG_ABS_SRCDIR
\set engines :src '/sql/engines.inc'
\set ECHO none
\i :engines
\set ECHO all

-- A step is "RECORDS AND A WATERMARK -> OUTCOME" in the words of engines.inc.  A record N/KEY:TIME is one of
-- partition N, "!" ends the worker before the step.  In the outcome a row is there if it is new or its values have
-- changed, "-KEY[START,END)" has gone, and W=TIME is the watermark, where the case shows it.
CREATE TABLE step_case (id int PRIMARY KEY, source text, win text, agg text DEFAULT 'count(*)', delay interval DEFAULT '300 days', lateness interval DEFAULT '0',
	emit text DEFAULT 'final', unit int DEFAULT 1, partitions int DEFAULT 1, shows_watermark boolean DEFAULT false, steps text[]);
-- Spark: EventTimeWatermarkSuite, StreamingSessionWindowSuite
INSERT INTO step_case (id, source, win, agg, delay, emit, unit, steps) VALUES
	(1, 'Spark: append mode', $$tumble(ts, '5 s')$$, 'count(*)', '10 s', 'final', 1000, '{10 11 12 13 14 15 ->,"25 -> [10,15)=5",10 -> @10}'),
	(2, 'Spark: update mode', $$tumble(ts, '5 s')$$, 'count(*)', '10 s', 'changes', 1000,
		'{"10 11 12 13 14 15 -> [10,15)~5 [15,20)~1","25 -> [25,30)~1","10 25 -> [25,30)~2 @10",10 -> @10}'),
	(3, 'Spark: complete mode', $$tumble(ts, '5 s')$$, 'count(*)', '1 day', 'changes', 1000,
		'{"10 11 12 -> [10,15)~3","25 -> [25,30)~1","25 -> [25,30)~2","10 -> [10,15)~4","25 -> [25,30)~3"}'),
	(4, 'Spark: recovery', $$tumble(ts, '5 s')$$, 'count(*)', '10 s', 'final', 1000,
		'{10 11 12 13 14 15 ->,"25 -> [10,15)=5","! 10 27 30 -> [15,20)=1 @10",! 17 -> @17,"40 -> [25,30)=2"}'),
	(5, 'Spark: append mode - session', $$session(ts, gap => '5 s')$$, $$count(*) || '/' || sum(v)$$, '10 s', 'final', 1000,
		'{1:10=10 1:11=11 ->,1:17=17 ->,2:25=25 ->,"3:35=35 -> 1[10,16)=2/21 1[17,22)=1/17",1:10=10 -> 1@10,"4:40=40 -> 2[25,30)=1/25"}'),
	(6, 'Spark: update mode - session', $$session(ts, gap => '5 s')$$, $$count(*) || '/' || sum(v)$$, '10 s', 'changes', 1000,
		'{"1:10=10 1:11=11 -> 1[10,16)~2/21","1:17=17 -> 1[17,22)~1/17","2:25=25 -> 2[25,30)~1/25","3:35=35 -> 3[35,40)~1/35",1:10=10 -> 1@10,"4:40=40 -> 4[40,45)~1/40"}'),
	(7, 'Spark: update mode - session - keys overlapped with sessions', $$session(ts, gap => '5 s')$$, $$count(*) || '/' || sum(v)$$, '10 s', 'changes', 1000,
		'{"0:10=10 1:11=11 0:12=12 1:13=13 -> 0[10,17)~2/22 1[11,18)~2/24","1:17=17 -> 1[11,22)~3/41 -1[11,18)","1:25=25 -> 1[25,30)~1/25","1:35=35 -> 1[35,40)~1/35","1:27=27 -> 1[25,32)~2/52 -1[25,30)",0:10=10 -> 0@10,"0:40=40 -> 0[40,45)~1/40"}'),
	(8, 'Spark: update mode - session - no key', $$session(ts, gap => '5 s')$$, $$count(*) || '/' || sum(v)$$, '10 s', 'changes', 1000,
		'{"10=10 11=11 -> [10,16)~2/21","17=17 -> [17,22)~1/17","25=25 -> [25,30)~1/25","35=35 -> [35,40)~1/35",10=10 -> @10,"40=40 -> [35,45)~2/75 -[35,40)"}'),
	(9, 'Spark: append mode - session window', $$session(ts, gap => '10 s')$$, 'count(*)', '30 s', 'final', 1000,
		'{hello:40 world:40 spark:40 streaming:40 world:41 hello:41 structured:41 streaming:41 ->,spark:25 streaming:25 ->,spark:0 streaming:0 -> spark@0 streaming@0,spark:30 streaming:30 ->,hello:60 apache:60 spark:60 ->,"structured:90 streaming:90 -> spark[25,50)=3 streaming[25,51)=4 hello[40,51)=2 world[40,51)=2 structured[41,51)=1"}'),
	(10, 'Spark: complete mode - session window', $$session(ts, gap => '10 s')$$, 'count(*)', '1 day', 'changes', 1000,
		'{"hello:40 world:40 spark:40 streaming:40 world:41 hello:41 structured:41 streaming:41 -> hello[40,51)~2 world[40,51)~2 streaming[40,51)~2 spark[40,50)~1 structured[41,51)~1","spark:25 streaming:25 -> spark[25,35)~1 streaming[25,35)~1","spark:30 streaming:30 -> spark[25,50)~3 streaming[25,51)~4 -spark[25,35) -streaming[25,35) -spark[40,50) -streaming[40,51)","hello:60 apache:60 spark:60 -> hello[60,70)~1 apache[60,70)~1 spark[60,70)~1","structured:90 streaming:90 -> structured[90,100)~1 streaming[90,100)~1"}'),
	(11, 'Spark: session window - with more aggregation functions', $$session(ts, gap => '10 s')$$,
		$$concat_ws('/', avg(v)::int, stddev(v)::int, variance(v)::int, sum(v), min(v), max(v))$$, '30 s', 'final', 1000,
		'{a:41=41 ->,a:42=42 ->,a:40=40 ->,"b:100=100 -> a[40,52)=41/1/1/123/40/42",b:101=101 ->}');
-- its first stream has a delay of 10 s and its second one of 5 s: here both have 10 s, and the second is 5 s ahead.  What
-- partition 0 had reached outlives the restart here, so the last watermark comes a record earlier
INSERT INTO step_case (id, source, win, delay, unit, partitions, shows_watermark, steps) VALUES
	(12, 'Spark: watermark with 2 streams', $$tumble(ts, '1 day')$$, '10 s', 1000, 2, true,
		'{0/11 -> W=none,1/11 -> W=1,1/13 -> W=1,0/21 -> W=3,1/22 1/33 1/44 -> W=11,0/31 -> W=21,0/41 -> W=31,0/51 -> W=34,0/100 1/105 -> W=90,0/120 1/115 -> W=105,0/130 1/130 -> W=120,0/100 1/105 -> W=120,0/140 1/105 -> W=120,0/100 1/140 -> W=130,0/200 1/195 -> W=185,! 1/205 -> W=190,0/200 -> W=190}');
-- Flink: StatusWatermarkValveTest, SlicingWindowAggOperatorTest, UnslicingWindowAggOperatorTest (which snapshot and
-- restore in the middle), WindowOperatorTest, GroupWindowITCase
INSERT INTO step_case (id, source, win, delay, partitions, shows_watermark, steps) VALUES
	(20, 'Flink: several inputs yield the least watermark', $$tumble(ts, '1 day')$$, '0', 3, true,
		'{0/12 -> W=none,1/8 -> W=none,2/10 -> W=8,1/15 -> W=10,2/17 -> W=12,0/20 -> W=15}'),
	(21, 'Flink: several inputs whose watermarks decrease yield none', $$tumble(ts, '1 day')$$, '0', 3, true,
		'{0/25 1/10 2/17 -> W=10,0/12 1/8 2/15 -> W=10}');
INSERT INTO step_case (id, source, win, agg, steps) VALUES
	(22, 'Flink: slicing, testEventTimeHoppingWindows', $$hop(ts, '3 s', every => '1 s')$$, $$sum(v) || '/' || count(*)$$,
		'{a2:3999 a2:3000 a1:20 a1:0 a1:999 a2:1998 a2:1999 a2:1000 ->,"<1000 -> a1[-2000,1000)=3/3","<2000 -> a1[-1000,2000)=3/3 a2[-1000,2000)=3/3","! <3000 -> a1[0,3000)=3/3 a2[0,3000)=3/3","<4000 -> a2[1000,4000)=5/5","a2:3500 <5000 -> a2[2000,5000)=3/3","a1:2999 <6000 -> a2[3000,6000)=3/3 a1@2999",<7000 ->,<8000 ->}'),
	(23, 'Flink: slicing, testEventTimeCumulativeWindows', $$cumulate(ts, '3 s', step => '1 s')$$, $$sum(v) || '/' || count(*)$$,
		'{a2:2999 a2:3000 a1:20 a1:0 a1:999 a2:1998 a2:1999 a2:1000 ->,"<1000 -> a1[0,1000)=3/3","<2000 -> a1[0,2000)=3/3 a2[0,2000)=3/3",a2:1000 ->,"! <3000 -> a1[0,3000)=3/3 a2[0,3000)=5/5","<4000 -> a2[3000,4000)=1/1","a1:3500=2 <5000 -> a2[3000,5000)=1/1 a1[3000,5000)=2/1","a1:2999 <6000 -> a2[3000,6000)=1/1 a1[3000,6000)=2/1 a1@2999",<7000 ->}'),
	(24, 'Flink: slicing, testEventTimeTumblingWindows', $$tumble(ts, '3 s')$$, $$sum(v) || '/' || count(*)$$,
		'{a2:3999 a2:3000 a1:20 a1:0 a1:999 a2:1998 a2:1999 a2:1000 ->,<1000 ->,! <2000 ->,"<3000 -> a1[0,3000)=3/3 a2[0,3000)=3/3",<4000 ->,a1:2500 <5000 -> a1@2500,"a2:2999 <6000 -> a2[3000,6000)=2/2 a2@2999",<7000 ->}'),
	(25, 'Flink: unslicing, testEventTimeSessionWindows', $$session(ts, gap => '3 s')$$, $$sum(v) || '/' || count(*)$$,
		'{a2:3999 a2:3000 a1:20 a1:0 a1:999 a2:1998 a2:1999 a2:1000 ->,<1000 ->,<2000 ->,<3000 ->,"! <4000 -> a1[0,3999)=3/3",a2:3500 <5000 ->,a1:999 <6000 -> a1@999,"<7000 -> a2[1000,6999)=6/6",<8000 ->}'),
	(26, 'Flink: operator, testSessionWindows', $$session(ts, gap => '3 s')$$, 'sum(v)',
		'{a2:0=1 a2:1000=2 a2:2500=3 a1:10=1 a1:1000=2 ->,! a1:2500=3 a2:5501=4 a2:6000=5 a2:6000=5 a2:6050=6 ->,"<12001 -> a1[10,5500)=6 a2[0,5500)=6 a2[5501,9050)=20",a2:15000=10 a2:15000=20 ->,"<18000 -> a2[15000,18000)=30"}');
INSERT INTO step_case (id, source, win, agg, delay, lateness, steps) VALUES
	(27, 'Flink: operator, testLateness; its late firing is what has come since', $$tumble(ts, '2 s')$$, 'count(*)', '300 days', '500 ms',
		'{k:500 <1501 ->,"k:1300 <2301 -> k[0,2000)=2","k:1997 -> k[0,2000)=3",<6001 ->,k:1998 <7001 -> k@1998}'),
	(28, 'Flink: testDistinctAggWithMergeOnEventTimeSessionGroupWindow', $$session(ts, gap => '5 ms')$$, $$count(DISTINCT v) || '/' || sum(DISTINCT v)$$, '10 ms', '0',
		'{Hello:1=2 Hello:2=2 Hello:8=2 Hello:10=3 HelloWorld:9=9 Hello:4=1 Hello:16=16 ->,"x:100 -> HelloWorld[9,14)=1/9 Hello[16,21)=1/16 Hello[1,15)=3/6"}');
-- Kafka Streams: SuppressScenarioTest, KTableSuppressProcessorTest, KStreamAggregationIntegrationTest
INSERT INTO step_case (id, source, win, delay, emit, steps) VALUES
	(40, 'Kafka Streams: shouldSupportFinalResultsForTimeWindows', $$tumble(ts, '2 ms')$$, '1 ms', 'final',
		'{k1:0 ->,k1:1 ->,k1:2 ->,k1:1 ->,k1:0 ->,"k1:5 -> k1[0,2)=4 k1[2,4)=1",k1:0 -> k1@0}'),
	(41, 'Kafka Streams: finalResultsSuppressionShouldBufferAndEmitAtGraceExpiration', $$tumble(ts, '100 ms')$$, '1 ms', 'final',
		'{hey:99 ->,gunk:100 ->,"dum:101 -> hey[0,100)=1"}'),
	(42, 'Kafka Streams: finalResultsWithZeroGraceShouldStillBufferUntilTheWindowEnd', $$tumble(ts, '100 ms')$$, '0', 'final', '{hey:50 ->,hey:99 ->,"dum:100 -> hey[0,100)=2"}'),
	(43, 'Kafka Streams: shouldSupportFinalResultsForSessionWindows', $$session(ts, gap => '5 ms')$$, '0', 'final',
		'{k1:0 ->,k1:5 ->,k1:1 ->,"k2:11 -> k1[0,10)=3",k1:5 -> k1@5,"k1:30 -> k2[11,16)=1"}'),
	(44, 'Kafka Streams: shouldCountSessionWindows, final', $$session(ts, gap => '5 min')$$, '0', 'final',
		'{bob:0 penny:0 jo:0 emily:0 ->,emily:150000 ->,"bob:300001 penny:300001 -> bob[0,300000)=1 penny[0,300000)=1 jo[0,300000)=1","bob:450001 jo:450001 -> emily[0,450000)=2",jo:450000 ->,"x:2000000 -> bob[300001,750001)=2 jo[450000,750001)=2 penny[300001,600001)=1"}'),
	(45, 'Kafka Streams: shouldCountSessionWindows', $$session(ts, gap => '5 min')$$, '0', 'changes',
		'{"bob:0 penny:0 jo:0 emily:0 -> bob[0,300000)~1 penny[0,300000)~1 jo[0,300000)~1 emily[0,300000)~1","emily:150000 -> emily[0,450000)~2 -emily[0,300000)","bob:300001 penny:300001 -> bob[300001,600001)~1 penny[300001,600001)~1","bob:450001 jo:450001 -> bob[300001,750001)~2 jo[450001,750001)~1 -bob[300001,600001)","jo:450000 -> jo[450000,750001)~2 -jo[450001,750001)"}');
-- Beam: trigger_transcripts (windows there end with their last moment), WindowingTest, TestStreamTest; panes with
-- fewer records than their trigger wants are not waited for here
INSERT INTO step_case (id, source, win, agg, lateness, emit, partitions, steps) VALUES
	(60, 'Beam: fixed_default', $$tumble(ts, '10 ms')$$, 'count(*)', '0', 'final', 1, '{1 2 3 10 11 ->,"<25 -> [0,10)=3 [10,20)=2"}'),
	(61, 'Beam: fixed_default_late_data', $$tumble(ts, '10 ms')$$, 'count(*)', '1 hour', 'final', 1, '{1 2 3 10 11 25 ->,"<100 -> [0,10)=3 [10,20)=2 [20,30)=1","7 -> [0,10)=4"}'),
	(62, 'Beam: early_late_sessions', $$session(ts, gap => '10 ms')$$, 'count(*)', '1 hour', 'changes', 1,
		'{"1 2 3 -> [1,13)~3","4 -> [1,14)~4 -[1,13)","5 -> [1,15)~5 -[1,14)","6 <100 -> [1,16)=6 -[1,15)","1 -> [1,16)=7","3 4 -> [1,16)=9"}'),
	(63, 'Beam: known_late_data_watermark', $$tumble(ts, '10 ms')$$, 'count(*)', '0', 'final', 1, '{<5 ->,2 3 7 8 ->,"<11 -> [0,10)=4"}'),
	(64, 'Beam: known_late_data_no_watermark_hold_possible', $$tumble(ts, '10 ms')$$, 'count(*)', '0', 'final', 1, '{<8 ->,2 3 7 ->,"<11 -> [0,10)=3"}'),
	(65, 'Beam: testPartitioningWindowing', $$tumble(ts, '10 ms')$$, 'count(*)', '0', 'final', 1, '{"a:1 b:2 b:3 c:11 d:11 <1000 -> a[0,10)=1 b[0,10)=2 c[10,20)=1 d[10,20)=1"}'),
	(66, 'Beam: testNonPartitioningWindowing', $$hop(ts, '10 ms', every => '5 ms')$$, 'count(*)', '0', 'final', 1,
		'{"a:1 a:7 b:8 <1000 -> a[-5,5)=1 a[0,10)=2 a[5,15)=1 b[0,10)=1 b[5,15)=1"}'),
	(67, 'Beam: testMergingWindowing', $$session(ts, gap => '10 ms')$$, 'count(*)', '0', 'final', 1, '{"a:1 a:5 a:20 <1000 -> a[1,15)=2 a[20,30)=1"}'),
	(68, 'Beam: testWindowPreservation', $$tumble(ts, '5 ms')$$, 'count(*)', '0', 'final', 2, '{"0/a:1 0/b:2 1/a:3 1/b:4 <1000 -> a[0,5)=2 b[0,5)=2"}'),
	(69, 'Beam: testEmptyInput', $$tumble(ts, '10 ms')$$, 'count(*)', '0', 'final', 1, '{<1000 ->}'),
	(70, 'Beam: testLateDataAccumulating', $$tumble(ts, '5 s')$$, $$count(*) || '/' || sum(v)$$, '5 s', 'final', 1,
		'{0=1 0=2 0=3 ->,"<6000 -> [0,5000)=3/6","0=4 0=5 -> [0,5000)=5/15",<20000 ->,0=-1 0=-2 0=-3 -> @0 @0 @0}');

DO $$
DECLARE
	c step_case;
BEGIN
	FOR c IN SELECT * FROM step_case ORDER BY id LOOP
		PERFORM stream_engine.create_stream('s' || c.id, server => 'engines_' || c.partitions, topic => make_topic('s' || c.id, c.partitions),
			columns => 'ts timestamptz EPOCH ''us'', k text, v numeric', event_time => 'ts', watermark_delay => c.delay, idle_timeout => '1 hour', staging_retention => '0');
		PERFORM stream_engine.create_query('q' || c.id, format('SELECT k, %s AS n FROM s%s GROUP BY %s, k', c.agg, c.id, c.win),
			emit => c.emit, emit_interval => CASE WHEN c.emit = 'changes' THEN interval '0' END, allowed_lateness => c.lateness);
	END LOOP;
END $$;

-- What the result has now, and what has changed since the last look.
CREATE TABLE seen (id int, what text, n text);
CREATE FUNCTION shown_now(c step_case) RETURNS TABLE (what text, n text, shown text) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format($q$
		SELECT w, n::text, w || CASE WHEN is_final THEN '=' ELSE '~' END || n FROM (
			SELECT format('%%s[%%s,%%s)', k, engines.units($1, window_start), engines.units($1, window_end)) AS w, n, is_final FROM engines.q%1$s) AS r
		UNION ALL
		SELECT partition || '/' || "offset", '', format('%%s@%%s', record::json ->> 'k', engines.units($1, event_time)) FROM stream_engine.late_events
		WHERE query = 'engines.q%1$s'::regclass $q$, c.id) USING c.unit;
END $$;
CREATE FUNCTION news(c step_case) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	got text;
BEGIN
	CREATE TEMP TABLE now ON COMMIT DROP AS SELECT * FROM engines.shown_now(c);
	SELECT string_agg(t, ' ' ORDER BY t COLLATE "C") INTO got FROM (
		SELECT shown FROM now WHERE NOT EXISTS (SELECT FROM engines.seen s WHERE s.id = c.id AND s.what = now.what AND s.n = now.n)
		UNION ALL SELECT '-' || s.what FROM engines.seen s WHERE s.id = c.id AND NOT EXISTS (SELECT FROM now WHERE now.what = s.what)
		UNION ALL SELECT 'W=' || CASE WHEN isfinite(watermark) THEN engines.units(c.unit, watermark) ELSE 'none' END FROM stream_engine.stat_queries
			WHERE query = ('engines.q' || c.id)::regclass AND c.shows_watermark) AS o (t);
	DELETE FROM engines.seen s WHERE s.id = c.id;
	INSERT INTO engines.seen SELECT c.id, now.what, now.n FROM now;
	DROP TABLE now;
	RETURN COALESCE(got, '');
END $$;

-- All cases go on together, a step at a time.
CREATE TABLE news_of (id int, i int, does text, theirs text, got text);
CREATE PROCEDURE play_steps() LANGUAGE plpgsql AS $$
DECLARE
	s record;
BEGIN
	FOR this_step IN 1 .. (SELECT max(cardinality(steps)) FROM engines.step_case) LOOP
		CREATE TEMP TABLE this AS
			SELECT id, unit, steps[this_step] AS step, btrim(split_part(steps[this_step], '->', 1)) AS does, btrim(split_part(steps[this_step], '->', 2)) AS theirs
			FROM engines.step_case WHERE this_step <= cardinality(steps);
		PERFORM pg_terminate_backend(w.pid) FROM this, stream_engine.stat_workers w
			WHERE does ^@ '!' AND w.pid IS NOT NULL AND w.reader = (SELECT stream_engine.query_reader(('engines.q' || this.id)::regclass));
		INSERT INTO engines.outbox (topic, partition, value)
		SELECT 's' || id, COALESCE(m[1]::int, 0), json_build_object('ts', round(m[3]::numeric * unit * 1000)::bigint, 'k', COALESCE(m[2], ''), 'v', COALESCE(m[4]::numeric, 1))::text
		FROM this, regexp_split_to_table(does, ' +') WITH ORDINALITY AS t (token, i), regexp_match(token, '^(?:([0-9])/)?(?:(.*):)?(-?[0-9.]+)(?:=(.*))?$') AS m
		WHERE m IS NOT NULL ORDER BY id, i;
		CALL engines.deliver();
		COMMIT;
		FOR s IN SELECT * FROM this LOOP
			CALL stream_engine.wait(('engines.q' || s.id)::regclass, '1 minute');
		END LOOP;
		FOR s IN SELECT id, engines.at(unit, substring(does FROM '<([-0-9.]+)')) AS upto FROM this WHERE does ~ '<' LOOP
			PERFORM stream_engine.advance_watermark(('engines.s' || s.id)::regclass, s.upto);
		END LOOP;
		COMMIT;
		FOR s IN SELECT id, engines.at(unit, substring(does FROM '<([-0-9.]+)')) AS upto FROM this WHERE does ~ '<' LOOP
			CALL engines.until(format('watermark >= %L FROM stream_engine.stat_queries WHERE query = ''engines.q%s''::regclass', s.upto, s.id));
		END LOOP;
		INSERT INTO engines.news_of SELECT this.id, this_step, this.does, this.theirs, engines.news(c) FROM this JOIN engines.step_case c USING (id);
		DROP TABLE this;
		COMMIT;
	END LOOP;
END $$;
CALL play_steps();

CREATE FUNCTION in_order(news text) RETURNS text LANGUAGE sql IMMUTABLE AS
	$$ SELECT string_agg(t, ' ' ORDER BY t COLLATE "C") FROM regexp_split_to_table(news, ' +') AS t $$;
SELECT c.id, c.source, count(*) AS steps, count(*) FILTER (WHERE got = in_order(theirs)) AS the_same FROM step_case c JOIN news_of USING (id) GROUP BY c.id ORDER BY c.id;
-- where they differ
SELECT id, i, does, theirs, got FROM news_of WHERE got <> in_order(theirs) ORDER BY 1, 2;
SELECT count(*) FILTER (WHERE decoded <> counted + late) AS unaccounted, sum(decoded) AS decoded, sum(late) AS late FROM stream_engine.stat_queries;

\set ECHO none
\set ends :src '/sql/engines_end.inc'
\i :ends
