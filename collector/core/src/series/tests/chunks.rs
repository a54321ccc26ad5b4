//! Sizes of chunks, and what is read from them.

use super::{machine::hour, *};

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
    // Several steps, but no more than a part is wide: the line continues.
    let near: Vec<Point> = [7, 8, 9, 14, 15].map(point).to_vec();
    let thinned = downsample(&near, from, to, 20);
    assert!(thinned.iter().all(|bucket| bucket.range.is_some()));
    assert_eq!(thinned.len(), 2);
    // So coarse that it fits within a part.
    assert_eq!(downsample(&points, from, to, 1).len(), 1);
    assert_eq!(downsample(&[], from, to, 10), []);
    assert_eq!(downsample(&points, to, from, 10), []);
}
