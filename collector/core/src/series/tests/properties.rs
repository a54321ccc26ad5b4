//! Properties of the codec, of merging and of thinning.

use proptest::prelude::*;

use super::*;

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
