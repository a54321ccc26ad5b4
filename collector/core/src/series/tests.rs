//! Round trips, damage, and the size of a realistic hour.

use proptest::prelude::*;

use super::*;

/// xorshift64*: numbers that are the same on every machine.
struct Noise(u64);

impl Noise {
    /// Evenly within 0 to 1.
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Roughly normal, deviation 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// How a metric of a real machine moves.
#[derive(Clone, Copy)]
enum Motion {
    /// Around a level, as CPU shares do.
    Around { level: f64, spread: f64 },
    /// A walk in whole pages, as memory does.
    Pages { step: f64 },
    /// Mostly nothing, now and then something: rates of a quiet disk or interface.
    Bursts { size: f64 },
    /// Slow drift in hundredths: disk shares, load.
    Drift { step: f64 },
    /// Always the same: totals, counts, read-only flags.
    Still { value: f64 },
    /// Up by the interval: uptime.
    Rising,
}

const MOTIONS: [(usize, Motion); 12] = [
    (
        6,
        Motion::Around {
            level: 8.0,
            spread: 1.5,
        },
    ),
    (
        4,
        Motion::Around {
            level: 0.5,
            spread: 0.2,
        },
    ),
    (6, Motion::Pages { step: 60.0 }),
    (12, Motion::Bursts { size: 40_000.0 }),
    (8, Motion::Bursts { size: 0.0 }),
    (6, Motion::Drift { step: 0.02 }),
    (4, Motion::Drift { step: 0.1 }),
    (
        10,
        Motion::Still {
            value: 33_554_432_000.0,
        },
    ),
    (3, Motion::Still { value: 0.0 }),
    (
        2,
        Motion::Around {
            level: 180.0,
            spread: 3.0,
        },
    ),
    (1, Motion::Rising),
    (1, Motion::Pages { step: 4.0 }),
];

/// One hour of a machine at 10 s: 360 rows of 63 values.
fn hour(seed: u64) -> Vec<Row> {
    let mut noise = Noise(seed);
    let motions: Vec<Motion> = MOTIONS
        .iter()
        .flat_map(|(count, motion)| std::iter::repeat_n(*motion, *count))
        .collect();
    let mut walks: Vec<f64> = motions.iter().map(|_| 1_000.0 * noise.unit()).collect();
    let mut rows = Vec::new();
    for beat in 0..360_i64 {
        let values = motions.iter().zip(&mut walks).map(|(motion, walk)| {
            let value = match *motion {
                Motion::Around { level, spread } => (level + spread * noise.normal()).max(0.0),
                Motion::Pages { step } => {
                    *walk = (*walk + step * noise.normal()).max(0.0);
                    (*walk + 100_000.0).floor() * 4_096.0
                }
                Motion::Bursts { size } if noise.unit() < 0.3 => size * noise.unit(),
                Motion::Bursts { .. } => 0.0,
                Motion::Drift { step } => {
                    *walk = (*walk + step * noise.normal()).max(0.0);
                    *walk
                }
                Motion::Still { value } => value,
                Motion::Rising => 100_000.0 + 10.0 * beat as f64,
            };
            to_hundredths(Some(value))
        });
        let values = values.collect();
        let jitter = (noise.unit() * 4.0) as i64;
        rows.push(Row {
            at: UnixMillis(1_700_000_000_000 + beat * 10_000 + jitter),
            schema: SchemaId(1),
            values,
        });
    }
    rows
}

#[test]
fn a_realistic_hour_takes_few_bytes_a_sample() {
    let rows = hour(42);
    let samples: usize = rows.iter().map(|row| row.values.len()).sum();
    assert_eq!(samples, 360 * 63);
    let chunk = ChunkData::from_rows(rows.iter().cloned());
    let bytes = encode(&chunk).unwrap();
    assert_eq!(decode(&bytes).unwrap(), chunk);
    let sealed = bytes.len() as f64 / samples as f64;
    println!("sealed: {sealed:.3} bytes a sample");
    assert!(sealed <= 1.3, "{sealed:.3} bytes a sample");

    let raw: usize = rows
        .iter()
        .map(|row| {
            let values: Vec<_> = row.values.iter().copied().map(from_hundredths).collect();
            row::encode(&values).len()
        })
        .sum();
    let raw = raw as f64 / samples as f64;
    println!("raw row: {raw:.3} bytes a sample");
    assert!(raw <= 3.0, "{raw:.3} bytes a sample in a raw row");
}

#[test]
fn a_metric_is_read_alone_across_schemas() {
    let row = |at, schema, values: &[i64]| Row {
        at: UnixMillis(at),
        schema: SchemaId(schema),
        values: values.iter().map(|value| Some(*value)).collect(),
    };
    let chunk = ChunkData::from_rows([
        row(10, 1, &[100, 250]),
        row(20, 2, &[300, 7, 8]),
        row(30, 1, &[400, 500]),
        row(40, 3, &[9]),
    ]);
    let known = |schema: SchemaId| match schema.0 {
        1 => Some(names(&["b", "a"])),
        2 => Some(names(&["a", "b", "c", "wider than the row"])),
        _ => None,
    };
    let mut named = chunk.clone();
    named.add_names(&known);
    assert_eq!(named.unnamed().collect::<Vec<_>>(), [SchemaId(3)]);
    // A chunk that holds its names needs nobody who knows them.
    for (chunk, known) in [
        (chunk, &known as &dyn Fn(SchemaId) -> Option<Names>),
        (named, &|_| None),
    ] {
        let bytes = encode(&chunk).unwrap();
        assert_eq!(decode(&bytes).unwrap(), chunk);
        let wanted = ["a", "none", "b", "wider than the row"];
        let found: Vec<Vec<(i64, f64)>> = read(&bytes, &wanted, known)
            .unwrap()
            .iter()
            .map(|points| points.iter().map(|p| (p.at.0, p.value)).collect())
            .collect();
        assert_eq!(found[0], [(10, 2.5), (20, 3.0), (30, 5.0)]);
        assert_eq!(found[1], []);
        assert_eq!(found[2], [(10, 1.0), (20, 0.07), (30, 4.0)]);
        assert_eq!(found[3], []);
    }
}

#[test]
fn a_chunk_without_names_of_an_earlier_version_is_read() {
    let rows = hour(7);
    let chunk = ChunkData::from_rows(rows.iter().cloned());
    // Version 1 is version 2 without the two counts in front.
    let plain = chunk::unpack(&encode(&chunk).unwrap()).unwrap();
    assert_eq!(plain[..2], [0, 0]);
    let mut old = vec![1];
    varint::write(&mut old, plain.len() as u64 - 2);
    old.extend(zstd::bulk::compress(&plain[2..], 3).unwrap());
    assert_eq!(decode(&old).unwrap(), chunk);
    assert_eq!(unnamed(&old).unwrap(), [SchemaId(1)]);
    let known = |_| Some(names(&["first", "second"]));
    let points = read(&old, &["second"], &known).unwrap();
    assert_eq!(points[0].len(), 360);
    // Merged with newer rows it gets its names.
    let mut newer = ChunkData::from_rows([Row {
        at: UnixMillis(0),
        schema: SchemaId(2),
        values: vec![Some(1)],
    }]);
    newer.add_names(&|_| Some(names(&["x"])));
    let mut merged = merge(&decode(&old).unwrap(), &newer);
    assert_eq!(merged.unnamed().collect::<Vec<_>>(), [SchemaId(1)]);
    merged.add_names(&known);
    let bytes = encode(&merged).unwrap();
    assert_eq!(unnamed(&bytes).unwrap(), []);
    let points = read(&bytes, &["second", "x"], &|_| None).unwrap();
    assert_eq!((points[0].len(), points[1].len()), (360, 1));
}

#[test]
fn names_take_few_bytes_of_a_chunk() {
    let chunk = ChunkData::from_rows(hour(42));
    let without = encode(&chunk).unwrap().len();
    let mut named = chunk;
    let list: Vec<String> = (0..63)
        .map(|n| match n {
            0..20 => format!("cpu.mode_{n}_pct"),
            20..40 => format!("disk.read_bytes_per_s:/var/lib/docker/volume{n}"),
            _ => format!("net.rx_bytes_per_s:eth{n}"),
        })
        .collect();
    let list: Vec<&str> = list.iter().map(String::as_str).collect();
    named.add_names(&|_| Some(names(&list)));
    let with = encode(&named).unwrap().len();
    println!("without names {without} bytes, with {with}");
    assert!(with - without < 600, "{with} against {without} bytes");
}

fn names(names: &[&str]) -> Names {
    names.iter().map(|name| Arc::from(*name)).collect()
}

#[test]
fn an_hour_beyond_the_limits_is_thinned_evenly() {
    let rows = |count: i64, width: usize| {
        (0..count).map(move |n| Row {
            at: UnixMillis(n),
            schema: SchemaId(1),
            values: vec![Some(n); width],
        })
    };
    let limit = MAX_ROWS_PER_CHUNK as i64;
    let mut chunk = ChunkData::from_rows(rows(limit, 3));
    assert_eq!(bound(&mut chunk), Dropped::default());
    let mut chunk = ChunkData::from_rows(rows(limit + 1, 3));
    let dropped = bound(&mut chunk);
    assert_eq!((dropped.thinned, chunk.len()), (13_500, 13_501));
    let times = chunk.segments()[0].times();
    assert!(times.windows(2).all(|pair| pair[1].since(pair[0]).0 == 2));
    assert!(encode(&chunk).is_ok());
    // Few rows, but too many values to hold.
    let mut chunk = ChunkData::from_rows(rows(9_000, 1_024));
    let dropped = bound(&mut chunk);
    assert_eq!((dropped.thinned, chunk.len()), (6_000, 3_000));
}

#[test]
fn more_names_than_the_limit_cost_the_rarest_schemas() {
    let own = |schema: u64| -> Names {
        let names = (0..1_000).map(|n| Arc::from(format!("m{schema}.{n}").as_str()));
        names.collect()
    };
    // The higher the schema, the more rows it has.
    let rows = (0..10_u64).flat_map(|schema| {
        (0..=schema).map(move |n| Row {
            at: UnixMillis((schema * 100 + n) as i64),
            schema: SchemaId(schema),
            values: vec![Some(1); 1_000],
        })
    });
    let mut chunk = ChunkData::from_rows(rows);
    chunk.add_names(&|schema| Some(own(schema.0)));
    assert!(encode(&chunk).is_err());
    let dropped = bound(&mut chunk);
    assert_eq!(dropped.unnamed, (1..=6).sum::<usize>());
    let kept: Vec<u64> = chunk.segments().iter().map(|one| one.schema().0).collect();
    assert_eq!(kept, [6, 7, 8, 9]);
    assert!(encode(&chunk).is_ok());
    // Any number of schemas without names.
    let many = (0..50_000_u64).map(|schema| Row {
        at: UnixMillis(schema as i64),
        schema: SchemaId(schema),
        values: Vec::new(),
    });
    let mut chunk = ChunkData::from_rows(many);
    bound(&mut chunk);
    assert!(chunk.len() <= 512 && encode(&chunk).is_ok());
}

#[test]
fn values_that_agents_send_are_kept_exactly() {
    // Hundredths up to 10^13, whole numbers up to 360 TB, whole KiB far beyond.
    for value in [
        0.01,
        99.99,
        9_999_999_999_999.99,
        -0.07,
        360_000_000_000_001.0,
    ] {
        assert_eq!(from_hundredths(to_hundredths(Some(value))), Some(value));
    }
    let petabytes = 9.0 * 1_024_f64.powi(5);
    assert_eq!(
        from_hundredths(to_hundredths(Some(petabytes))),
        Some(petabytes)
    );
}

#[test]
fn a_newer_version_is_refused() {
    let mut bytes = encode(&ChunkData::default()).unwrap();
    assert_eq!(decode(&bytes), Ok(ChunkData::default()));
    bytes[0] = 3;
    assert_eq!(decode(&bytes), Err(ChunkError::Version(3)));
    assert!(decode(&[]).is_err());
}

#[test]
fn a_chunk_that_claims_to_be_huge_is_refused_before_it_is_unpacked() {
    let mut bytes = vec![chunk::OLD_VERSION];
    varint::write(&mut bytes, MAX_DECODED_CHUNK_BYTES as u64 + 1);
    assert!(matches!(decode(&bytes), Err(ChunkError::TooLarge { .. })));
    // Rows and columns that the bytes could not hold.
    let mut plain = vec![1];
    plain.extend_from_slice(&7_u64.to_le_bytes());
    varint::write(&mut plain, 20_000);
    varint::write(&mut plain, 2_000_000);
    let mut bytes = vec![1];
    varint::write(&mut bytes, plain.len() as u64);
    bytes.extend(zstd::bulk::compress(&plain, 3).unwrap());
    assert!(matches!(decode(&bytes), Err(ChunkError::TooLarge { .. })));
}

#[test]
fn times_that_do_not_ascend_are_damage() {
    let segment = |times: &[i64]| ChunkData {
        segments: vec![Segment {
            schema: SchemaId(1),
            times: times.iter().map(|at| UnixMillis(*at)).collect(),
            columns: vec![],
        }],
        names: BTreeMap::new(),
    };
    assert!(decode(&encode(&segment(&[5, 6, 9])).unwrap()).is_ok());
    for times in [[5, 5, 9], [5, 9, 9], [5, 9, 6]] {
        let refused = decode(&encode(&segment(&times)).unwrap());
        let expected = ChunkError::Damaged("its times do not ascend");
        assert_eq!(refused, Err(expected), "{times:?}");
    }
}

#[test]
fn what_is_too_long_is_damage() {
    let mut row = row::encode(&[Some(1.0)]);
    row.push(0);
    assert!(row::decode(&row).is_err());
    let mut largest = vec![0xff; 9];
    largest.push(1);
    assert_eq!(varint::read(&mut &largest[..]), Some(u64::MAX));
    largest[9] = 2;
    assert_eq!(varint::read(&mut &largest[..]), None);
}

#[test]
fn more_rows_than_the_limit_are_refused_when_written() {
    let rows = (0..=MAX_ROWS_PER_CHUNK as i64).map(|at| Row {
        at: UnixMillis(at),
        schema: SchemaId(1),
        values: vec![],
    });
    let refused = encode(&ChunkData::from_rows(rows));
    assert!(
        matches!(refused, Err(ChunkError::TooLarge { .. })),
        "{refused:?}"
    );
}

fn hundredths() -> impl Strategy<Value = Hundredths> {
    prop_oneof![
        1 => Just(None),
        3 => (-500_i64..500).prop_map(Some),
        2 => (0_i64..1_000).prop_map(|pages| Some(pages * 409_600)),
        1 => (-MAX_HUNDREDTHS..=MAX_HUNDREDTHS).prop_map(Some),
    ]
}

/// Rows of up to three schemas, in any order, times sometimes equal.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (
        prop_oneof![9 => 0_i64..2_000, 1 => any::<i64>()],
        1_u64..4,
        proptest::collection::vec(hundredths(), 3),
    );
    proptest::collection::vec(row, 0..60).prop_map(|rows| {
        let row = |(at, schema, mut values): (i64, u64, Vec<Hundredths>)| {
            values.truncate(schema as usize);
            Row {
                at: UnixMillis(at),
                schema: SchemaId(schema),
                values,
            }
        };
        rows.into_iter().map(row).collect()
    })
}

/// What a chunk of these rows must hold: the first of each time, by time.
fn expected(rows: &[Row]) -> Vec<Row> {
    let mut kept: Vec<Row> = Vec::new();
    for row in rows {
        if kept.iter().all(|other| other.at != row.at) {
            kept.push(row.clone());
        }
    }
    kept.sort_by_key(|row| row.at);
    kept
}

proptest! {
    #[test]
    fn a_chunk_survives_the_round_trip(rows in rows()) {
        let chunk = ChunkData::from_rows(rows.iter().cloned());
        let expected = expected(&rows);
        prop_assert_eq!(chunk.len(), expected.len());
        let decoded = decode(&encode(&chunk).unwrap()).unwrap();
        prop_assert_eq!(decoded.rows(), expected);
        prop_assert_eq!(decoded, chunk);
    }

    #[test]
    fn merging_keeps_each_time_once_and_the_first_of_it(a in rows(), b in rows()) {
        let merged = merge(
            &ChunkData::from_rows(a.iter().cloned()),
            &ChunkData::from_rows(b.iter().cloned()),
        );
        let both: Vec<Row> = a.into_iter().chain(b).collect();
        prop_assert_eq!(merged.rows(), expected(&both));
        prop_assert_eq!(merge(&merged, &merged), merged);
    }

    #[test]
    fn one_metric_read_alone_is_the_same_as_in_the_whole(rows in rows(), column in 0_usize..3) {
        let bytes = encode(&ChunkData::from_rows(rows.iter().cloned())).unwrap();
        let known = |_| Some(names(&["0", "1", "2"]));
        let points: Vec<_> = read(&bytes, &[&column.to_string()], &known)
            .unwrap()[0]
            .iter()
            .map(|point| (point.at, Some(point.value)))
            .collect();
        let whole: Vec<_> = expected(&rows)
            .iter()
            .filter_map(|row| Some((row.at, from_hundredths(Some((*row.values.get(column)?)?)))))
            .collect();
        prop_assert_eq!(points, whole);
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let known = |_| Some(names(&["a"]));
        let _ = decode(&bytes);
        let _ = read(&bytes, &["a"], &known);
        let _ = row::decode(&bytes);
        // The same as the inside of a chunk, where zstd's own checks do not stand before.
        for version in [chunk::OLD_VERSION, chunk::VERSION] {
            let mut packed = vec![version];
            varint::write(&mut packed, bytes.len() as u64);
            packed.extend(zstd::bulk::compress(&bytes, 1).unwrap());
            let _ = decode(&packed);
            let _ = unnamed(&packed);
            let _ = read(&packed, &["a"], &known);
        }
    }

    /// Damage inside the frame: read as something else or refused, never a panic.
    #[test]
    fn a_damaged_chunk_never_panics(
        rows in rows(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut chunk = ChunkData::from_rows(rows);
        chunk.add_names(&|_| Some(names(&["a", "b", "c"])));
        let bytes = encode(&chunk).unwrap();
        let mut rest = &bytes[1..];
        let len = varint::read_len(&mut rest).unwrap();
        let mut plain = zstd::bulk::decompress(rest, len).unwrap();
        for (place, byte) in damage {
            let place = place.index(plain.len());
            plain[place] ^= byte;
        }
        plain.truncate(plain.len() - cut.index(plain.len()) / 8);
        let mut packed = vec![chunk::VERSION];
        varint::write(&mut packed, plain.len() as u64);
        packed.extend(zstd::bulk::compress(&plain, 1).unwrap());
        if let Ok(chunk) = decode(&packed) {
            for segment in chunk.segments() {
                let rows = segment.times().len();
                prop_assert!(segment.columns().iter().all(|column| column.len() == rows));
                prop_assert!(segment.times().is_sorted_by(|a, b| a < b));
            }
        }
        let short = &bytes[..cut.index(bytes.len())];
        prop_assert!(decode(short).is_err());
    }

    #[test]
    fn a_row_survives_the_round_trip(values in proptest::collection::vec(hundredths(), 0..80)) {
        let numbers: Vec<_> = values.iter().copied().map(from_hundredths).collect();
        let bytes = row::encode(&numbers);
        // As hundredths: beyond 10^13 an `f64` has no exact ones.
        let kept: Vec<_> = numbers.iter().copied().map(to_hundredths).collect();
        let shown: Vec<_> = kept.iter().copied().map(from_hundredths).collect();
        prop_assert_eq!(row::decode_hundredths(&bytes).unwrap(), kept);
        prop_assert_eq!(row::decode(&bytes).unwrap(), shown);
        for end in 0..bytes.len() {
            prop_assert!(row::decode(&bytes[..end]).is_err(), "cut at {}", end);
        }
    }

    #[test]
    fn what_is_no_finite_number_is_missing_and_the_rest_is_near(value in any::<f64>()) {
        let back = row::decode(&row::encode(&[Some(value)])).unwrap()[0];
        if !value.is_finite() {
            prop_assert_eq!(back, None);
        } else if value.abs() < 1e13 {
            let float = value.abs() * 1e-15;
            prop_assert!((back.unwrap() - value).abs() <= 0.005 + float);
        } else {
            prop_assert!(back.is_some());
        }
    }

    #[test]
    fn varints_survive_the_round_trip(value in any::<u64>(), signed in any::<i64>()) {
        let mut bytes = Vec::new();
        varint::write(&mut bytes, value);
        prop_assert_eq!(varint::read(&mut &bytes[..]), Some(value));
        prop_assert_eq!(varint::unzigzag(varint::zigzag(signed)), signed);
    }

    #[test]
    fn thinning_out_keeps_extremes_and_order(
        steps in proptest::collection::vec((1_i64..30, -100.0..100.0_f64), 0..200),
        from in -50_i64..500,
        length in -5_i64..3_000,
        buckets in 0_usize..100,
    ) {
        let mut at = 0;
        let points: Vec<Point> = steps
            .iter()
            .map(|(step, value)| {
                at += step;
                Point { at: UnixMillis(at), value: *value }
            })
            .collect();
        let (from, to) = (UnixMillis(from), UnixMillis(from + length));
        let thinned = downsample(&points, from, to, buckets);
        let ranges: Vec<Range> = thinned.iter().filter_map(|bucket| bucket.range).collect();
        prop_assert!(ranges.len() <= buckets);
        prop_assert!(thinned.is_sorted_by(|a, b| a.at <= b.at));
        prop_assert!(thinned.iter().all(|bucket| from <= bucket.at && bucket.at < to));
        let inside: Vec<f64> = points
            .iter()
            .filter(|point| buckets > 0 && from <= point.at && point.at < to)
            .map(|point| point.value)
            .collect();
        let min = inside.iter().copied().reduce(f64::min);
        let max = inside.iter().copied().reduce(f64::max);
        prop_assert_eq!(ranges.iter().map(|range| range.min).reduce(f64::min), min);
        prop_assert_eq!(ranges.iter().map(|range| range.max).reduce(f64::max), max);
        prop_assert!(ranges.iter().all(|r| r.min <= r.mean && r.mean <= r.max));
    }
}

#[test]
fn gaps_stay_gaps_and_sparse_points_stay_whole() {
    let point = |secs: i64| Point {
        at: UnixMillis(secs * 1_000),
        value: secs as f64,
    };
    let points: Vec<Point> = (0..10).chain(100..110).map(point).collect();
    let (from, to) = (UnixMillis(0), UnixMillis(200_000));
    // Finer than the steps: each point for itself, and no gap between neighbours.
    let thinned = downsample(&points, from, to, 1_000);
    let gaps: Vec<usize> = (0..thinned.len())
        .filter(|&i| thinned[i].range.is_none())
        .collect();
    assert_eq!((thinned.len(), gaps), (21, vec![10]));
    // Coarser: the gap is still there.
    let thinned = downsample(&points, from, to, 20);
    let shown: Vec<_> = thinned
        .iter()
        .map(|bucket| bucket.range.map(|range| (range.min, range.mean, range.max)))
        .collect();
    assert_eq!(
        shown,
        [Some((0.0, 4.5, 9.0)), None, Some((100.0, 104.5, 109.0))]
    );
    // Several steps, but no more than a part is wide: the line goes on.
    let near: Vec<Point> = [7, 8, 9, 14, 15].map(point).to_vec();
    let thinned = downsample(&near, from, to, 20);
    assert!(thinned.iter().all(|bucket| bucket.range.is_some()));
    assert_eq!(thinned.len(), 2);
    // So coarse that it fits within a part.
    assert_eq!(downsample(&points, from, to, 1).len(), 1);
    assert_eq!(downsample(&[], from, to, 10), []);
    assert_eq!(downsample(&points, to, from, 10), []);
}
