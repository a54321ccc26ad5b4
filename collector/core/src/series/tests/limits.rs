//! Limits of a chunk, and what is refused as damaged.

use super::*;

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
